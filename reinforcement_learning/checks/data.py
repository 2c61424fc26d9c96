"""The data files of a run: there, readable, with rows that can be trained on, and enough of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.chat_formats import image_rule_for
from agent.image_library import store_of
from agent.images import ImageRule
from agent.recipes import RecipeError, shared_value
from reinforcement_learning.checks.file_reports import FileReport, check_file, model_here, settings_key, token_counter
from reinforcement_learning.recipe import Recipe, verl_value
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_files import cache_directory, find_files
from reinforcement_learning.rows import COLUMNS, RowOptions

_NEEDED = ("data_source", "prompt", "reward_model")


@dataclass(slots=True)
class DataFindings:
    """What the check of the data knows that others need."""

    files: tuple[str, ...] = ()
    rows: int = 0
    dropped: list[RowError] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Rows that will be trained on."""
        return self.rows - len(self.dropped)


def row_options(recipe: Recipe) -> RowOptions:
    """How the rows of a recipe are read."""
    return RowOptions(
        prompt_key=str(verl_value(recipe, "data.prompt_key") or "prompt"),
        image_key=str(verl_value(recipe, "data.image_key") or "images"),
        image_roots=tuple(str(Path(root).resolve()) for root in recipe.run.image_roots),
    )


def check_data(recipe: Recipe, patterns: Iterable[str], findings: DataFindings | None = None) -> str:
    """Look at every row of some files.

    Args:
        recipe: Whose limits apply.
        patterns: Of files.
        findings: Filled in.

    Returns:
        What was found, in lines.

    Raises:
        RecipeError: Nothing can be trained on, or `run.on_bad_rows` is `stop` and a row is bad.
    """
    findings = findings if findings is not None else DataFindings()
    options = row_options(recipe)
    files = find_files(patterns)
    lines = _compare_schemas(files, options)
    count_tokens = token_counter(recipe)
    key = settings_key(recipe, options) + str(count_tokens is not None)
    reports = [check_file(file, recipe, options, count_tokens, settings_key=key) for file in files]
    findings.files = tuple(files)
    findings.rows = sum(report.rows for report in reports)
    findings.dropped = [problem for report in reports for problem in report.problems]
    lines += _unprepared(files)
    summary = [_summary(reports, counted=count_tokens is not None), *lines, *_reasons(findings.dropped)]
    if findings.usable == 0:
        raise RecipeError("\n".join([f"no row of {findings.rows:,} can be trained on", *_reasons(findings.dropped)]))
    if findings.dropped and recipe.run.on_bad_rows == "stop":
        raise RecipeError("\n".join([*summary, "run.on_bad_rows is stop: mend these rows, or set it to drop"]))
    return "\n".join(summary)


def check_batch(recipe: Recipe, usable: int) -> str:
    """Rows against the batch, and the batch against its parts.

    Raises:
        RecipeError: There would be no step, or sizes do not divide; all of them.
    """
    values = _Values(recipe)
    batch, mini, n = (
        values.of("data.train_batch_size", 1024),
        values.of("actor_rollout_ref.actor.ppo_mini_batch_size", 256),
        values.of("actor_rollout_ref.rollout.n", 1),
    )
    ranks = values.of("trainer.nnodes", 1) * values.of("trainer.n_gpus_per_node", 8)
    problems = []
    if usable < batch:
        problems.append(
            f"0 steps: {usable:,} rows can be trained on, a batch takes verl.data.train_batch_size={batch:,} and a part of "
            "one is left out (drop_last); lower it, or add data"
        )
    if mini > batch or batch % mini:
        problems.append(f"verl.data.train_batch_size={batch} is no multiple of actor.ppo_mini_batch_size={mini}")
    if mini * n % ranks:
        problems.append(
            f"actor.ppo_mini_batch_size={mini} x rollout.n={n} = {mini * n} episodes cannot be shared by {ranks} GPUs"
        )
    prompt, response = values.of("data.max_prompt_length", 512), values.of("data.max_response_length", 512)
    longest = values.of("actor_rollout_ref.rollout.max_model_len", 0)
    if longest and prompt + response > longest:
        problems.append(
            f"data.max_prompt_length={prompt} + max_response_length={response} = {prompt + response} tokens exceed "
            f"rollout.max_model_len={longest}"
        )
    if problems:
        raise RecipeError("; ".join(problems))
    steps, epochs = usable // batch, values.of("trainer.total_epochs", 30)
    total = values.of("trainer.total_training_steps", 0) or steps * epochs
    return (
        f"{usable:,} rows, {batch} a step: {steps:,} steps an epoch, {total:,} in all; {batch * n:,} episodes a step, "
        f"{batch // mini} updates; prompt {prompt:,} + response {response:,} tokens"
    )


class _Values:
    """Whole numbers of the `verl:` block; what is none is said by the check of verl's values."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def of(self, path: str, default: int) -> int:
        value = verl_value(self._recipe, path)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def image_costs(recipe: Recipe) -> str:
    """What two usual sizes become and take in tokens.

    Raises:
        RecipeError: `agent.image_max_pixels` is less than the model is shown at least.
    """
    limit, shared = recipe.agent.image_max_pixels, int(shared_value("image_max_pixels"))
    model = model_here(recipe.run.model)
    try:
        if model is None:
            rule = image_rule_for(recipe.run.model, limit)
        else:
            rule = model[1].image_rule(limit, ImageRule.of_processor(model[0].image_processor))
    except ValueError as error:
        raise RecipeError(f"agent.image_max_pixels: {error}") from error
    return f"{rule}; agent/shared.yaml, which cold start and evaluation go by, says {shared:,} pixels"


def _unprepared(files: Sequence[str]) -> list[str]:
    new = sum(store_of(Path(file).parent) is None for file in files)
    if not new:
        return []
    place = cache_directory() / "store"
    return [
        f"{new} of {len(files)} files were not prepared: at the first use their images go by name into {place}; `deepeyes "
        "data prepare rl` does that once for all users"
    ]


def _compare_schemas(files: Sequence[str], options: RowOptions) -> list[str]:
    """Differences between files, which are no fault: each is read by its own schema."""
    import pyarrow
    import pyarrow.parquet

    types: dict[str, dict[str, str]] = {}
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise RecipeError(f"{file} is no readable parquet file ({error}); was its download cut off?") from error
        needed = [dict(zip(COLUMNS, options.columns, strict=True))[name] for name in _NEEDED]
        missing = [name for name in needed if name not in schema.names]
        if missing:
            raise RecipeError(f"{file} lacks {', '.join(sorted(missing))}; it has {', '.join(sorted(schema.names))}")
        for name in options.columns:
            if name in schema.names:
                _flatten(name, schema.field(name).type, Path(file).name, types)
    lines = []
    for path, by_file in types.items():
        kinds: dict[str, list[str]] = {}
        for file, kind in by_file.items():
            kinds.setdefault(kind, []).append(file)
        if len(kinds) > 1:
            lines.append(
                f"schemas differ in {path}: "
                + "; ".join(f"{kind} in {_some(names)}" for kind, names in kinds.items())
                + "; each file is read by its own"
            )
    return lines


def _flatten(path: str, kind: object, file: str, types: dict[str, dict[str, str]]) -> None:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        for item in kind:  # type: ignore[attr-defined]
            _flatten(f"{path}.{item.name}", item.type, file, types)
    else:
        types.setdefault(path, {})[file] = str(kind)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _summary(reports: Sequence[FileReport], *, counted: bool) -> str:
    rows = sum(report.rows for report in reports)
    sources: Counter[str] = sum((report.sources for report in reports), Counter())
    good = sum(sources.values())
    text = (
        f"{rows:,} rows in {len(reports)} files ({', '.join(f'{name} {count:,}' for name, count in sources.most_common())})"
    )
    text += f", {sum(report.images for report in reports):,} images decoded"
    if counted and good:
        mean = sum(report.sum_tokens for report in reports) / good
        text += f"; prompts have {mean:,.0f} tokens on average, {max(report.max_tokens for report in reports):,} at most"
    elif not counted:
        text += "; tokens not counted, the model's tokenizer is not here"
    for name, what in (
        ("fitted", "with an image of extreme shape, fitted"),
        ("escaped", "with special tokens in their text, escaped"),
    ):
        number = sum(getattr(report, name) for report in reports)
        text += f"; {number:,} {what}" if number else ""
    fresh = [report for report in reports if not report.cached]
    seconds = sum(report.seconds for report in fresh)
    if fresh:
        text += f"; {sum(report.rows for report in fresh) / max(seconds, 1e-9):,.0f} rows a second"
    if len(fresh) < len(reports):
        text += f"; {len(reports) - len(fresh)} files unchanged since they were last looked at"
    return text


def _reasons(dropped: Sequence[RowError]) -> list[str]:
    """How many rows have each fault, with the first as an example."""
    first: dict[str, RowError] = {}
    for problem in dropped:
        first.setdefault(problem.kind, problem)
    counts = Counter(problem.kind for problem in dropped)
    return [f"left out {count:,}: {kind}; such as {first[kind]}" for kind, count in counts.most_common()]
