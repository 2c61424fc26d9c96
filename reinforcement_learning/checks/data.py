"""The data files of a run: there, readable, with rows that can be trained on."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from agent.recipes import RecipeError
from reinforcement_learning.rewards import load_reward

_COLUMNS = {"data_source", "prompt", "images", "reward_model", "extra_info"}


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


def check_data(patterns: Iterable[str]) -> str:
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
