"""Data and base model of the quickstart. `python -m deepeyes.quickstart.make RUN SEED BASE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from data.families import load_family
from data.families._demonstrations import DirectShares
from data.families._files import Amounts, questions, write_family, write_rl_rows
from deepeyes.quickstart.tiny_model import make_tiny_model

FAMILY = "mark"
_AMOUNTS = Amounts(sft=2400, rl_train=256, benchmark=200)
_SHARES = DirectShares(not_needed=0.4, needed=0.1)
"""So that the cold start ends in using the tool nearly always; see benchmarks/README.md."""
_NUM_VALIDATION = 16
_VALIDATION_SEED = 1_000_003
"""Other boards than those of training, which has seed 0."""


def main() -> None:
    """Write `<run>/data` and `<run>/models/base`."""
    directory, seed, base = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    family, data = load_family(FAMILY), directory / "data"
    write_family(family, data, amounts=_AMOUNTS, shares=_SHARES)
    others = questions(family, "rl_train", _NUM_VALIDATION, seed=_VALIDATION_SEED, level=1)
    write_rl_rows(data / "rl_val.parquet", family, others, name=f"{FAMILY}_val")
    conversations = json.loads((data / "sft.json").read_text(encoding="utf-8"))
    texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
    make_tiny_model(texts, directory / "models/base", base=base, seed=seed)


if __name__ == "__main__":
    main()
