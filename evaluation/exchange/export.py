"""A run in the forms of other harnesses, so that their scorers and viewers can be used on it.

    python -m evaluation.exchange.export RUN --to vlmevalkit|lmms-eval|inspect --out FOLDER

`vlmevalkit`  the benchmark's rows without images, with a column `prediction`: what `run.py --mode eval` scores
`lmms-eval`   one JSON object a line, as its `<date>_samples_<task>.jsonl`
`inspect`     an `.eval` log with the whole conversations, for its viewer
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.messages import Message
from agent.records import EpisodeKey
from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.runs.folder import Latest, RunMismatch, prediction_of, read_json, read_run, read_scores
from evaluation.tables.tsv import raw_rows

FORMS = ("vlmevalkit", "lmms-eval", "inspect")


def export(run: Path, form: str, out: Path) -> Path:
    """Write a run in another form.

    Args:
        run: With episodes; scored, except for `vlmevalkit`.
        form: One of FORMS.
        out: Folder, made if it is not there.

    Returns:
        The file.

    Raises:
        RunMismatch: The folder is no run, or was not scored.
        BenchmarkError: The benchmark's file is needed and is no TSV.
    """
    out.mkdir(parents=True, exist_ok=True)
    return {"vlmevalkit": _vlmevalkit, "lmms-eval": _lmms_eval, "inspect": _inspect}[form](run, out)


def _name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(text).name)


def _vlmevalkit(run: Path, out: Path) -> Path:
    """The first sample of every item; what was not run is left out, as there."""
    settings = read_run(run)
    data = Path(settings["data"])
    if data.suffix != ".tsv":
        raise BenchmarkError(f"{data} is no TSV: VLMEvalKit has no prediction file for {settings['benchmark']}")
    published = next(iter(load_benchmark(settings["benchmark"]).files))
    path = out / f"{_name(settings['model'])}_{Path(published).stem}.tsv"
    episodes = Latest(run)
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for _, values in raw_rows(data, ()):
            episode = episodes.get(EpisodeKey(values["index"]))
            if episode is None or episode.failed:
                continue
            values.pop("image", None)
            row = values | {"prediction": prediction_of(episode).text}
            if writer is None:
                writer = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    return path


def _lmms_eval(run: Path, out: Path) -> Path:
    settings, episodes = read_run(run), Latest(run)
    path = out / f"{datetime.now(UTC):%Y%m%d_%H%M%S}_samples_{settings['benchmark']}.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for number, row in enumerate(read_scores(run)):
            episode = episodes.get(EpisodeKey(row["item_id"], row["sample"]))
            asked = "" if episode is None else episode.opening[-1].text
            said = row["prediction"]
            line = {
                "doc_id": number, "doc": {"index": row["item_id"], "category": row["category"]}, "target": row["gold"],
                "arguments": {"context": asked}, "resps": [[said]], "filtered_resps": [row["extracted"] or said],
                "doc_hash": _sha(row["item_id"]), "prompt_hash": _sha(asked), "target_hash": _sha(row["gold"]),
                "acc": row["score"], "decided_by": row["decided_by"], "stop_reason": row["stop_reason"],
                "token_counts": {"input_tokens": row["prompt_tokens"], "output_tokens": row["reply_tokens"]},
            }  # fmt: skip
            lines.write(json.dumps(line) + "\n")
    return path


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _inspect(run: Path, out: Path) -> Path:
    """Version 2 of its log: a zip of a header, summaries, and a file a sample; images as data URIs."""
    settings, summary = read_run(run), read_json(run / "summary.json")
    rows = read_scores(run)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    spec = {
        "created": created, "task": settings["benchmark"], "model": settings["model"],
        "config": {"epochs": summary["samples"]},
        "dataset": {"name": settings["benchmark"], "location": settings["data"], "samples": summary["items"]},
        "metadata": {name: settings[name] for name in ("mode", "prompt", "prompt_sha256", "temperature")},
    }  # fmt: skip
    metrics = {name: {"name": name, "value": value} for name, value in summary["scores"].items()}
    header = {
        "version": 2, "status": "success", "eval": spec, "plan": {},
        "results": {
            "total_samples": summary["items"], "completed_samples": summary["evaluated"],
            "scores": [{"name": "acc", "scorer": f"deepeyes/{summary['profile']}", "metrics": metrics}],
        },
        "stats": {"started_at": created, "completed_at": created},
    }  # fmt: skip
    path = out / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}_{settings['benchmark']}.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("_journal/start.json", json.dumps({"version": 2, "eval": spec, "plan": {}}))
        summaries = []
        for row, sample in _inspect_samples(run, rows):
            name = re.sub(r"[^\w.-]+", "_", str(sample["id"]))
            log.writestr(f"samples/{name}_epoch_{sample['epoch']}.json", json.dumps(sample))
            names = ("id", "epoch", "target", "scores")
            summaries.append({key: sample[key] for key in names} | {"input": row["prediction"][:100], "completed": True})
        log.writestr("summaries.json", json.dumps(summaries))
        log.writestr("header.json", json.dumps(header))
    return path


def _inspect_samples(run: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    saved = Latest(run)
    for row in rows:
        # One at a time: all episodes with their images may not fit into memory.
        episode = saved.get(EpisodeKey(row["item_id"], row["sample"]))
        messages = [] if episode is None else [_inspect_message(message) for message in episode.opening]
        for turn in episode.turns if episode is not None else ():
            messages.append({"role": "assistant", "content": turn.reply.primer + turn.reply.text, "source": "generate"})
            if turn.observation is not None:
                messages.append(_inspect_message(turn.observation))
        score = {"value": row["score"], "answer": row["extracted"], "explanation": row["decided_by"]}
        yield (
            row,
            {
                "id": row["item_id"], "epoch": row["sample"] + 1, "input": messages[:2], "target": row["gold"],
                "messages": messages, "scores": {} if row["score"] is None else {"acc": score},
                "output": {"model": "", "choices": [{"message": {"role": "assistant", "content": row["prediction"]}}]},
                "metadata": {name: row[name] for name in ("stop_reason", "category", "tool_calls")},
            },
        )  # fmt: skip


def _inspect_message(message: Message) -> dict[str, Any]:
    content: list[Mapping[str, Any]] = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.data_uri()}
        for part in message.parts()
    ]
    return {"role": message.role, "content": content if message.images else message.text}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="deepeyes export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{export(options.run, options.to, options.out)}\n")
    except (RunMismatch, BenchmarkError, OSError) as error:
        sys.exit(f"export: {error}")


if __name__ == "__main__":
    main()
