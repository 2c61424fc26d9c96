"""System prompts. One file a prompt: `agent/prompts/<name>.yaml` with `version`, `system`, `reminder` and `primer`.

Numbers and the list of tools are filled in from `AgentSettings`, which the tools read too: a prompt cannot promise what
the tools do not keep. `$python_timeout_s`, `$max_hits`, `$page_chars` and `$tools` are the placeholders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.settings import AgentSettings
from agent.tools import describe_tools

_DIRECTORY = Path(__file__).parent


class PromptFile(BaseModel):
    """What stands in a prompt's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    """Raised with every change of wording: scores of two versions are not comparable."""
    system: str
    reminder: str = ""
    primer: str = ""
    """Put before each reply that follows an observation, unless a setting says otherwise."""
    without_tools: str | None = None
    """The prompt to use when there is nothing to put in place of `$tools`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered system prompt and the user-turn reminder that goes with it."""

    name: str
    version: int
    system: str
    reminder: str
    """Appended to the question, after a blank line."""
    primer: str = ""

    @property
    def sha256(self) -> str:
        """The digest of system prompt and reminder as rendered; it goes into every score."""
        return hashlib.sha256(f"{self.system}\0{self.reminder}".encode()).hexdigest()

    def question(self, text: str) -> str:
        """The user turn."""
        return f"{text}\n\n{self.reminder}" if self.reminder else text


def prompt_names() -> list[str]:
    """Prompts on disk."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.yaml"))


def load_prompt(
    name: str,
    *,
    tools: Sequence[str] | None = None,
    settings: AgentSettings | None = None,
    directory: Path = _DIRECTORY,
) -> Prompt:
    """Read and fill a prompt.

    Args:
        name: Of a file, without its suffix.
        tools: That the episode has, by default those of the settings that are on; those that describe themselves are listed.
            With none of them, a prompt that lists tools gives way to the one it names in `without_tools`.
        settings: The numbers; the tools must get the same.
        directory: Where the files lie.

    Raises:
        LookupError: No prompt of that name; the message lists those that are.
        ValueError: The file is broken, or asks for a value that is not given.
    """
    settings = settings or AgentSettings()
    tools = settings.tools_on if tools is None else tools
    path = directory / f"{name}.yaml"
    if not path.is_file():
        raise LookupError(
            f"no prompt {name!r}; there are: {', '.join(sorted(file.stem for file in directory.glob('*.yaml')))}"
        )
    try:
        file = PromptFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"prompt {path.name} cannot be read; expected version, system and reminder: {error}") from error
    listed = describe_tools(tools, settings)
    if "$tools" in file.system + file.reminder and not listed:
        if file.without_tools is None:
            raise ValueError(f"prompt {name} lists tools, but none of {list(tools)} describes itself; choose another prompt")
        return load_prompt(file.without_tools, tools=tools, settings=settings, directory=directory)
    values = {
        "python_timeout_s": f"{settings.python_timeout_s:g}",
        "max_hits": str(settings.max_hits),
        "page_chars": str(settings.page_chars),
        "tools": listed,
    }
    try:
        system, reminder = (Template(text).substitute(values) for text in (file.system, file.reminder))
    except (KeyError, ValueError) as error:
        raise ValueError(f"prompt {path.name} has a placeholder without a value: {error}") from error
    return Prompt(name, file.version, system, reminder, file.primer)
