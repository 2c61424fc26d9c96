"""Training files -> what the agent loop needs. Image bytes go into the run's store; nothing is decoded on the trainer."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import torch
from verl.utils.dataset.rl_dataset import RLHFDataset

from agent.image_library import ImageLibrary
from agent.recipes import RecipeError
from reinforcement_learning.dropped import read_dropped
from reinforcement_learning.row_files import RowStore
from reinforcement_learning.rows import RowContent, RowOptions
from reinforcement_learning.verl_adapter.image_store import run_store


class RowTable:
    """Rows of several files under one number, as verl uses a `datasets.Dataset`: length, item, and a choice of rows.

    Args:
        stores: One a file.
        rows: (number of the store, row in it), in the order of the table; None is all rows of all stores.
    """

    def __init__(self, stores: Sequence[RowStore], rows: Sequence[tuple[int, int]] | None = None) -> None:
        self._stores = list(stores)
        self._rows = rows if rows is not None else _AllRows([len(store) for store in stores])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> RowContent:
        store, row = self._rows[item]
        return self._stores[store][row]

    def library(self, item: int) -> ImageLibrary:
        """The store that has the images of a row, if they are named in it."""
        return self._stores[self._rows[item][0]].library

    def select(self, indices: Iterable[int]) -> RowTable:
        """The table of some of the rows."""
        return RowTable(self._stores, [self._rows[index] for index in indices])

    def without(self, dropped: set[tuple[str, int]], files: Sequence[str]) -> RowTable:
        """The table without rows that are named by file and number."""
        if not dropped:
            return self
        return RowTable(self._stores, [(store, row) for store, row in self._rows if (files[store], row) not in dropped])


class _AllRows(Sequence[tuple[int, int]]):
    """(store, row) of every row, not kept as a list of that length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._ends = list(numpy.cumsum(lengths, dtype=int).tolist())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, item: Any) -> Any:
        if not 0 <= item < len(self):
            raise IndexError(item)
        store = bisect.bisect_right(self._ends, item)
        return store, item - (self._ends[store - 1] if store else 0)


class EpisodeDataset(RLHFDataset):
    """verl's data set, read by `rows.py`: rows keep text with `<image>` placeholders and the names of their images.

    Named in the recipe by `verl.data.custom_cls`. Rows that the check has refused (`data.deepeyes.dropped_path`) are
    left out.
    """

    def _download(self, use_origin_parquet: bool = False) -> None:
        """Files are read where they lie: relative image paths are relative to them."""
        if use_origin_parquet:
            self.data_files = copy.deepcopy(self.original_data_files)

    def _read_files_and_tokenize(self) -> None:
        ours = self.config.get("deepeyes") or {}
        options = RowOptions(
            prompt_key=self.prompt_key, image_key=self.image_key, image_roots=tuple(ours.get("image_roots") or ())
        )
        files = [str(file) for file in self.data_files]
        table = RowTable([RowStore(file, options) for file in files])
        table = table.without(read_dropped(ours.get("dropped_path")), files)
        if 0 < self.max_samples < len(table):
            chosen: list[int] = list(range(self.max_samples))
            if self.shuffle:
                chosen = list(numpy.random.default_rng(self.seed).permutation(len(table))[: self.max_samples])
            table = table.select(chosen)
        if not len(table):
            raise RecipeError(f"no row of {', '.join(files)} is left to train on; the dry run lists why each was left out")
        self.dataframe = table

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def split(self, num_splits: int) -> list[Any]:
        """Equal parts, a remainder left out."""
        if num_splits < 1 or num_splits > len(self):
            raise ValueError(f"{len(self)} rows cannot be split into {num_splits} parts")
        size = len(self) // num_splits
        parts = []
        for number in range(num_splits):
            part = copy.copy(self)
            part.dataframe = self.dataframe.select(range(number * size, (number + 1) * size))
            parts.append(part)
        return parts

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: RowContent = self.dataframe[item]
        library = self.dataframe.library(item)
        return {
            "data_source": row.data_source,
            "raw_prompt": list(row.messages),
            "image_names": [run_store().put(data, library=library) for data in row.images],
            "question": row.question,
            "reward_model": {"ground_truth": list(row.gold)},
            "extra_info": dict(row.extra),
            "index": row.item_id,
            # verl's collator wants at least one tensor.
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
            "tools_kwargs": {},
            "interaction_kwargs": {},
        }
