"""Data and base model of the quickstart. `python -m scripts.quickstart_data RUN SEED`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cold_start.tiny_model import make_tiny_model
from data.tiles import write_dataset


def main() -> None:
    """Write `<run>/data` and `<run>/models/base`."""
    directory, seed = Path(sys.argv[1]), int(sys.argv[2])
    write_dataset(directory / "data")
    conversations = json.loads((directory / "data/sft.json").read_text(encoding="utf-8"))
    texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
    make_tiny_model(texts, directory / "models/base", seed=seed)


if __name__ == "__main__":
    main()
