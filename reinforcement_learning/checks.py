"""What must be there before anything expensive starts: model, data, disk, Redis and sandbox, judge, search."""

from __future__ import annotations

import asyncio
import glob
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError
from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxError
from judge.client import Judge, JudgeSettings
from reinforcement_learning.recipe import Recipe
from reinforcement_learning.rewards import load_reward

_COLUMNS = {"data_source", "prompt", "images", "reward_model", "extra_info"}
_MIN_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    message: str


def find_files(patterns: Iterable[str]) -> list[str]:
    """Expand patterns into absolute paths.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern))  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise RecipeError(f"no data file matches {pattern!r}; see data/README.md for where to get them")
        found += [str(Path(match).resolve()) for match in matches]
    return found


def check_recipe(recipe: Recipe) -> list[Check]:
    """Look at everything; a failing check never hides the next one."""
    checks = [
        _run("model", lambda: _check_model(recipe.run.model)),
        _run("disk", lambda: _check_disk(Path(recipe.run.directory))),
        _run("train data", lambda: _check_data(recipe.run.train_files)),
    ]
    if recipe.run.val_files:
        checks.append(_run("validation data", lambda: _check_data(recipe.run.val_files)))
    if "python" in recipe.agent.tools:
        checks.append(_run("sandbox and Redis", lambda: _check_sandbox(recipe)))
    checks.append(_run("judge", lambda: _check_judge(recipe)))
    for tool, block in (("search", recipe.agent.search), ("image_search", recipe.agent.image_search)):
        if tool in recipe.agent.tools:
            pages = tool == "search" and "fetch_page" in recipe.agent.tools
            checks.append(_run(tool, lambda t=tool, b=block, p=pages: _check_search(t, b, pages=p)))  # type: ignore[misc]
    return checks


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (ValueError, OSError, LookupError, SandboxError) as error:
        return Check(name, False, str(error))


def _check_model(model: str) -> str:
    path = Path(model)
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise RecipeError(f"run.model is {model}, but there is no {config}; give a Hugging Face model folder")
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        if kind not in ("qwen2_5_vl", "qwen2_vl"):
            raise RecipeError(f"{model} is a {kind!r}; rollouts speak Qwen2-VL's and Qwen2.5-VL's ChatML only")
        return f"{model} ({kind})"
    if path.is_absolute() or model.startswith((".", "runs/", "saves/")):
        raise RecipeError(f"run.model is {model}, which is no folder; train it first or set run.model=…")
    return f"{model} (a hub name; it is fetched at the first use)"


def _check_disk(directory: Path) -> str:
    existing = next(path for path in (directory, *directory.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < _MIN_FREE_BYTES:
        raise RecipeError(f"{existing} has {free >> 20:,} MiB free; a run needs at least 1 GiB there. Set run.directory=…")
    return f"{free >> 30:,} GiB free in {existing}"


def _check_data(patterns: Iterable[str]) -> str:
    import pyarrow
    import pyarrow.parquet

    files = find_files(patterns)
    rows, sources = 0, set[str]()
    for file in files:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            columns = set(table.schema_arrow.names)
            missing = _COLUMNS - columns
            if missing:
                raise RecipeError(f"{file} lacks {', '.join(sorted(missing))}; it has {', '.join(sorted(columns))}")
            rows += table.metadata.num_rows
            for batch in table.iter_batches(columns=["data_source"], batch_size=65_536):
                sources |= set(batch.column(0).to_pylist())
        except pyarrow.ArrowException as error:
            raise RecipeError(f"{file} is no readable parquet file ({error}); was its download cut off?") from error
    for source in sources:
        load_reward(source)
    return f"{rows:,} rows of {', '.join(sorted(sources))} in {len(files)} files"


def _check_sandbox(recipe: Recipe) -> str:
    async def ask() -> str:
        async with SandboxClient(list(recipe.agent.sandbox_urls), wait_s=5.0) as client:
            states = await client.health()
            for state in states:
                if state.redis != "ok":
                    raise RecipeError(
                        f"sandbox {state.server_id} has lost its Redis and takes no new sessions; restart Redis"
                    )
            session = await client.open()
            try:
                result = await session.execute("print(6 * 7)", timeout_s=10)
            finally:
                await session.close()
            if result.stdout.strip() != "42":
                raise RecipeError(f"the sandbox computed {result.stdout!r} instead of 42: {result.stderr}")
            return f"{len(states)} server(s), room for {sum(state.max_sessions for state in states)} sessions"

    return asyncio.run(ask())


def _check_judge(recipe: Recipe) -> str:
    block = recipe.agent.judge
    if not block.base_urls:
        if block.strict_rules:
            return "answers are decided by rules alone"
        raise RecipeError(
            "no judge: set LLM_AS_A_JUDGE_BASE (such as http://10.0.0.5:18901/v1), or agent.judge.strict_rules=true for "
            "data that rules can decide"
        )

    async def ask() -> None:
        judge = Judge(JudgeSettings(base_urls=block.base_urls, model=block.model, prompt=block.prompt))
        try:
            await judge.ping()
        finally:
            await judge.aclose()

    asyncio.run(ask())
    return f"{block.model} at {', '.join(block.base_urls)}"


def _check_search(tool: str, block: dict[str, Any] | None, *, pages: bool) -> str:
    from agent.search.gateway import open_search

    if not block:
        raise RecipeError(f"the tool {tool!r} needs agent.{tool}: {{provider: …}}, or take it out of agent.tools")
    search = open_search(block)
    if search is None:
        return "off"
    asyncio.run(search.aclose())
    if pages and not search.can("open_page"):
        raise RecipeError(f"provider {block['provider']!r} opens no pages; take fetch_page out of agent.tools")
    return f"{block['provider']} ({search.settings.mode})"
