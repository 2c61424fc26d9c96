"""System prompts, by name. Numbers in them come from the configuration, so prompt and server cannot disagree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from string import Template

_DIRECTORY = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered system prompt and the user-turn reminder that goes with it."""

    name: str
    system: str
    reminder: str
    """Appended to the question, after a blank line."""

    @property
    def sha256(self) -> str:
        """Of system prompt and reminder as rendered; goes into every score."""
        return hashlib.sha256(f"{self.system}\0{self.reminder}".encode()).hexdigest()

    def question(self, text: str) -> str:
        """The user turn."""
        return f"{text}\n\n{self.reminder}" if self.reminder else text


def prompt_names() -> list[str]:
    """Prompts on disk."""
    return sorted(path.name.removesuffix(".system.txt") for path in _DIRECTORY.glob("*.system.txt"))


def load_prompt(name: str, *, python_timeout_s: float = 200.0, max_hits: int = 5) -> Prompt:
    """Read and fill a prompt.

    Raises:
        LookupError: No prompt of that name; the message lists those that are.
        ValueError: The file asks for a value that is not given.
    """
    if name not in prompt_names():
        raise LookupError(f"no prompt {name!r}; there are: {', '.join(prompt_names())}")
    values = {"python_timeout_s": f"{python_timeout_s:g}", "max_hits": str(max_hits)}
    texts = []
    for kind in ("system", "reminder"):
        template = Template((_DIRECTORY / f"{name}.{kind}.txt").read_text(encoding="utf-8").rstrip("\n"))
        try:
            texts.append(template.substitute(values))
        except (KeyError, ValueError) as error:
            raise ValueError(f"prompt {name}.{kind}.txt has a placeholder without a value: {error}") from error
    return Prompt(name, texts[0], texts[1])
