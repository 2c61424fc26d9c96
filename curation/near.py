"""Finds rows that nearly repeat an earlier one: by words (MinHash) and by what their images look like (perceptual hash)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evaluation.analysis.contamination import words

_PERMUTATIONS = 128
_BITS = 64


class NearTexts:
    """Texts that were seen.

    Args:
        similarity: Share of runs of words that two texts have in common, from which on they are near.
    """

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._make = MinHash
        self._similarity = similarity
        self._index = MinHashLSH(threshold=similarity, num_perm=_PERMUTATIONS)
        self._seen: dict[int, Any] = {}

    def hash(self, text: str) -> Any:
        """A text's MinHash: over its words and pairs of words, so that short questions have enough to compare."""
        found = words(text)
        made = self._make(num_perm=_PERMUTATIONS, seed=1)
        made.update_batch([" ".join(run).encode("utf-8", "replace") for run in [*zip(found), *itertools.pairwise(found)]])
        return made

    def likeness(self, one: Any, number: int) -> float:
        """How near a hash is to a text that was seen."""
        return float(one.jaccard(self._seen[number]))

    def near(self, one: Any) -> Iterator[int]:
        """Numbers of the texts that are near."""
        for number in sorted(self._index.query(one)):
            if self.likeness(one, number) >= self._similarity:
                yield number

    def add(self, number: int, one: Any, *, indexed: bool) -> None:
        """Remember a text; one that is only compared by its number needs no index."""
        self._seen[number] = one
        if indexed:
            self._index.insert(number, one, check_duplication=False)


class NearImages:
    """Hashes that were seen, found by parts: of `bits` + 1 parts of two hashes that differ in `bits`, one is equal."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        edges = np.linspace(0, _BITS, bits + 2).astype(int)
        self._parts = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(edges)]
        self._by_part: list[dict[int, list[int]]] = [defaultdict(list) for _ in self._parts]
        self._seen: dict[int, tuple[int, ...]] = {}

    def distance(self, one: Sequence[int], number: int) -> int | None:
        """Most bits by which two rows' images differ, in their order; None if they are not as many, or differ by more."""
        other = self._seen[number]
        if len(one) != len(other):
            return None
        worst = max((a ^ b).bit_count() for a, b in zip(one, other, strict=True))
        return worst if worst <= self._bits else None

    def near(self, one: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(number, bits) of the rows whose images all look the same."""
        found: set[int] = set()
        for (low, mask), table in zip(self._parts, self._by_part, strict=True):
            found.update(table.get(one[0] >> low & mask, ()))
        for number in sorted(found):
            if (bits := self.distance(one, number)) is not None:
                yield number, bits

    def add(self, number: int, one: Sequence[int]) -> None:
        """Remember a row's images."""
        self._seen[number] = tuple(one)
        for (low, mask), table in zip(self._parts, self._by_part, strict=True):
            table[one[0] >> low & mask].append(number)
