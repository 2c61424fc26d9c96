"""The data set's card, as huggingface_hub writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.settings import Curation


def card(manifest: Mapping[str, Any], curation: Curation) -> str:
    """Licences, sources, counts, filters, and the teacher of each trajectory."""
    from huggingface_hub import DatasetCardData

    licences = sorted({source.licence for source in curation.file.sources})
    facts = DatasetCardData(
        license=licences[0] if len(licences) == 1 else "other",
        pretty_name=curation.file.name,
        tags=["deepeyes"],
        size_categories=[_size(manifest["rows"]["rl"] + manifest["rows"]["sft"])],
    )
    from huggingface_hub import DatasetCard

    rows, parts = manifest["rows"], []
    parts.append(
        f"# {curation.file.name}\n\n{rows['rl']:,} RL rows and {rows['sft']:,} conversations over {rows['images']:,} images."
    )
    parts.append("## Sources\n\n" + _table(("source", "licence", "group", "RL rows"), [
        (source.name, source.licence, source.group, f"{rows['rl_by_source'].get(source.name, 0):,}")
        for source in curation.file.sources
    ]))  # fmt: skip
    parts.append("## Filters\n\n" + _table(("step", "in", "kept", "dropped", "open", "settings"), [
        (step["folder"], step["in"], step["kept"], step["dropped"], step["open"], _said(step))
        for step in manifest["steps"]
    ]))  # fmt: skip
    if manifest["models"]:
        parts.append("## Models\n\n" + _table(("name", "model", "calls", "tokens read", "tokens written", "USD"), [
            (name, model["model"], model["calls"], model["prompt_tokens"], model["reply_tokens"], model["usd"])
            for name, model in manifest["models"].items()
        ]))  # fmt: skip
    if manifest["teachers"]:
        teachers = [(name, curation.file.models[name].model, number) for name, number in manifest["teachers"].items()]
        parts.append(
            "## Teachers\n\n" + _table(("teacher", "model", "conversations"), teachers)
            + "\n\nEach conversation names its own as `teacher`."
        )  # fmt: skip
    parts.append(
        f"Answers were judged by {manifest['judge']['model']}. `manifest.json` has all settings, checksums and versions."
    )
    made = DatasetCard(f"---\n{facts.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")
    return str(made)


def _said(step: Mapping[str, Any]) -> str:
    settings = step["settings"]
    own = settings.get("own") if isinstance(settings, dict) else None
    if not own:
        return ""
    # Where files lay on the machine of whoever made the set is nobody else's business.
    shown = {name: list(value) if name == "benchmarks" else value for name, value in own.items() if value is not None}
    return f"`{shown}`"


def _size(number: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if number < bound:
            return name
    return "n>1M"


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    def line(cells: Any) -> str:
        # A stroke or a line's end in a cell would end the cell.
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])
