"""Data and base model of the quickstart. `python -m deepeyes.quickstart.make RUN SEED BASE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from data.tiles import write_dataset
from deepeyes.quickstart.tiny_model import make_tiny_model


def main() -> None:
    """Write `<run>/data` and `<run>/models/base`."""
    directory, seed, base = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    write_dataset(directory / "data")
    conversations = json.loads((directory / "data/sft.json").read_text(encoding="utf-8"))
    texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
    make_tiny_model(texts, directory / "models/base", base=base, seed=seed)


if __name__ == "__main__":
    main()
