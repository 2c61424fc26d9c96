"""The YAML of a curation: sources, models, and a list of steps with their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent.loading import load_plugin, plugin_names
from agent.model_keys import model_key
from agent.recipes import RecipeError, explain, read_yaml
from agent.settings import AgentSettings
from agent.setup import from_environment
from curation.errors import CurationError
from judge.client import JudgeSettings
from serving.urls import split_urls

STEPS = "curation.steps"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Strict(BaseModel):
    """Settings of which every name is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class SourceSettings(Strict):
    """Where questions come from."""

    name: Name
    path: str
    """A parquet file in any form that RL reads (reinforcement_learning/rows.py), or a pattern of such files."""
    licence: str
    """Of the data, for the card; `unknown` is a word, too, but has to be said."""
    group: str
    """What `mix` counts by, such as `perception`."""
    data_source: str | None = None
    """The reward's name for all rows; null leaves what each row says."""


class ModelSettings(Strict):
    """A model behind an OpenAI-compatible endpoint."""

    model: str
    """Its name there; a family's own image rule is found by it."""
    base_urls: tuple[str, ...]
    """With `/v1`; several, also in one text with commas, share the load. Their key: MODEL_API_KEY."""
    dialect: Literal["vllm", "openai"] = "vllm"
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_in_flight: int = Field(32, ge=1)
    """Episodes at once, of one process."""
    timeout_s: float = Field(600.0, gt=0)
    attempts: int = Field(5, ge=1)
    """Times that one request is sent before that is an outage."""
    patience_s: float = Field(30.0, ge=0)
    """How long a request waits while no server answers anybody."""
    max_calls: int | None = Field(None, ge=1)
    """Requests that may be answered in this run's folder, over all processes and repetitions; those under way count."""
    max_cost_usd: float | None = Field(None, gt=0)
    """The same in money; needs both prices and `context_tokens`."""
    context_tokens: int | None = Field(None, ge=1)
    """What one request reads and writes at most, such as the model's window: so much a request under way counts for."""
    usd_per_million_prompt_tokens: float | None = Field(None, ge=0)
    usd_per_million_reply_tokens: float | None = Field(None, ge=0)

    @field_validator("base_urls", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        texts = [given] if isinstance(given, str) else given
        return [url for text in texts for url in split_urls(text)] if isinstance(texts, list | tuple) else given

    @model_validator(mode="after")
    def _capped_by_prices(self) -> ModelSettings:
        if not self.base_urls:
            raise ValueError("base_urls is empty; give the address of the server, with /v1")
        needed = ("usd_per_million_prompt_tokens", "usd_per_million_reply_tokens", "context_tokens")
        if self.max_cost_usd is not None and (missing := [name for name in needed if getattr(self, name) is None]):
            raise ValueError(
                f"max_cost_usd needs {', '.join(missing)}; give the prices, and the most tokens of one request (the model's "
                "window), or bound requests with max_calls"
            )
        return self

    @property
    def api_key(self) -> str:
        """The environment has it, and nothing else."""
        return model_key(self.base_urls)

    def usd(self, prompt_tokens: int, reply_tokens: int) -> float:
        """What so many tokens cost; 0 without prices."""
        prompt, reply = self.usd_per_million_prompt_tokens or 0.0, self.usd_per_million_reply_tokens or 0.0
        return (prompt * prompt_tokens + reply * reply_tokens) / 1e6

    def identity(self) -> dict[str, Any]:
        """What decides what it says; addresses, bounds and prices do not."""
        return self.model_dump(include={"model", "dialect", "temperature", "top_p"})


class CurationFile(Strict):
    """The whole file."""

    name: Name
    """Of the set that is exported, and of the run's folder."""
    seed: int = 0
    store: Path = Path("datasets/store")
    """Where images and finished sets lie."""
    run: Path | None = None
    """The run's folder; by default runs/curate/NAME."""
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    models: dict[Name, ModelSettings] = Field(default_factory=dict)
    agent: dict[str, Any] = Field(default_factory=dict)
    """Settings of agent/settings.py for episodes with tools."""
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    """Without servers rules alone decide; what they cannot tell stays open."""
    steps: tuple[dict[str, Any], ...] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _named_apart(cls, sources: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are called {', '.join(twice)}; rows are named by them, so give each its own name")
        return sources


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of the list."""

    number: int
    kind: str
    settings: Any
    label: str

    @property
    def folder(self) -> str:
        """Its folder's name in the run's."""
        return f"{self.number:02d}_{self.label}"

    def said(self) -> Any:
        """Its settings as plain values."""
        return self.settings.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curation:
    """A file that was read and found to fit together."""

    file: CurationFile
    steps: tuple[Step, ...]

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.file.run or Path("runs/curate") / self.file.name

    def agent_settings(self, **more: Any) -> AgentSettings:
        """What an episode with tools follows.

        Raises:
            CurationError: What is wrong, in one line.
        """
        try:
            return AgentSettings.model_validate(dict(from_environment()) | self.file.agent | more)
        except ValidationError as error:
            raise CurationError(f"agent: {explain(error, AgentSettings)}") from error


def read_curation(path: Path) -> Curation:
    """Read a file and check that its steps fit together.

    Raises:
        CurationError: The message names the key, its value and what to do.
    """
    if not path.is_file():
        raise CurationError(f"there is no file {path}; curation/README.md has one to start from")
    try:
        file = CurationFile.model_validate(read_yaml(path))
    except RecipeError as error:
        raise CurationError(str(error)) from error
    except ValidationError as error:
        raise CurationError(f"{path}: {explain(error, CurationFile)}{_values(error)}") from error
    steps = tuple(_step(path, number, given, file.models) for number, given in enumerate(file.steps, start=1))
    _check_order(path, steps)
    curation = Curation(file=file, steps=steps)
    curation.agent_settings()
    return curation


def _step(path: Path, number: int, given: Mapping[Any, Any], models: Mapping[str, ModelSettings]) -> Step:
    place = f"{path}: step {number}"
    if len(given) != 1:
        raise CurationError(f"{place} has the keys {', '.join(map(str, given)) or 'none'}; expected one: the step's name")
    ((kind, values),) = given.items()
    if kind not in plugin_names(STEPS):
        raise CurationError(f"{place} is called {kind!r}; there are: {', '.join(plugin_names(STEPS))}")
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise CurationError(f"{place}, {kind}, has {values!r}; expected its settings, such as `{kind}: {{}}`")
    # YAML 1.1 reads the bare word `on` as true.
    values = {"on" if name is True else name: value for name, value in values.items()}
    model: type[BaseModel] = load_plugin(STEPS, str(kind)).SETTINGS
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        raise CurationError(f"{place}, {kind}: {explain(error, model)}{_values(error)}") from error
    for name in getattr(settings, "asks", ()):
        if name not in models:
            known = ", ".join(models) or "none"
            raise CurationError(f"{place}, {kind}, asks the model {name!r}; under models: there are {known}")
    return Step(number=number, kind=str(kind), settings=settings, label=getattr(settings, "as_", None) or str(kind))


def _values(error: ValidationError) -> str:
    """What was given where it was wrong; names alone would leave a reader searching."""
    shown = [repr(problem["input"])[:80] for problem in error.errors() if problem["type"] not in ("missing", "value_error")]
    return f" (given: {'; '.join(shown)})" if shown else ""


def _check_order(path: Path, steps: Sequence[Step]) -> None:
    """Facts are counted before they are asked for, and parts made before they are named."""
    facts: list[str] = []
    parts = ["rl"]
    for step in steps:
        place = f"{path}: step {step.number}, {step.kind},"
        for fact in getattr(step.settings, "facts", ()):
            if fact not in facts:
                raise CurationError(f"{place} asks for {fact!r}; the steps before it count {', '.join(facts) or 'nothing'}")
        for part in getattr(step.settings, "parts", ()):
            if part not in parts:
                raise CurationError(f"{place} names the part {part!r}; the steps before it make {', '.join(parts)}")
        if step.kind == "sample":
            if f"{step.label}.right" in facts:
                raise CurationError(f"{place} is called {step.label!r} like one before it; give it another `as`")
            facts += [f"{step.label}.{name}" for name in ("right", "wrong", "open", "calls", "k")]
        if made := tuple(getattr(step.settings, "makes", ())):
            parts = list(made)
