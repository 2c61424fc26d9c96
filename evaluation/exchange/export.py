"""A run in the forms of other harnesses, so that their scorers and viewers can be used on it.

    deepeyes export RUN --to vlmevalkit|lmms-eval|inspect --out FOLDER

`vlmevalkit`  the benchmark's rows without images, with a column `prediction`: what `run.py --mode eval` scores; beside it
              `thinking`, all that the model wrote, and `stop_reason`
`lmms-eval`   one JSON object a line, as its `<date>_samples_<task>.jsonl`
`inspect`     an `.eval` log with the whole conversations, for its viewer
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from agent.episode import Episode
from agent.messages import Message
from agent.records import EpisodeKey
from code_sandbox.command_line import CommandParser, program
from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.runs.folder import Latest, is_empty, prediction_of
from evaluation.runs.provenance import read_provenance
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.summary import read_summary
from evaluation.scoring.grader import Prediction
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
    read_provenance(run)  # so that what is no run leaves no folder
    out.mkdir(parents=True, exist_ok=True)
    return {"vlmevalkit": _vlmevalkit, "lmms-eval": _lmms_eval, "inspect": _inspect}[form](run, out)


def _name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(text).name)


def _vlmevalkit(run: Path, out: Path) -> Path:
    """The first sample of every item; what was not run is left out, as there."""
    settings = read_provenance(run).settings
    data = Path(settings.data)
    if data.suffix != ".tsv":
        raise BenchmarkError(f"{data} is no TSV: VLMEvalKit has no prediction file for {settings.benchmark}")
    published = next(iter(load_benchmark(settings.benchmark).files))
    path = out / f"{_name(settings.model)}_{Path(published).stem}.tsv"
    episodes = Latest(run)
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for _, values in raw_rows(data, (), skip_odd=True):
            episode = episodes.get(EpisodeKey(values["index"]))
            if episode is None or episode.failed or is_empty(episode):
                continue
            values.pop("image", None)
            said = prediction_of(episode)
            row = values | {"prediction": said.text, "thinking": said.full, "stop_reason": str(episode.stop_reason)}
            if writer is None:
                # All cells in quotes: Python 3.11 leaves a lone carriage return bare, which ends a row.
                writer = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
                writer.writeheader()
            writer.writerow(row)
    return path


def _lmms_eval(run: Path, out: Path) -> Path:
    benchmark, episodes = read_provenance(run).settings.benchmark, Latest(run)
    path = out / f"{datetime.now(UTC):%Y%m%d_%H%M%S}_samples_{benchmark}.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for number, row in enumerate(read_scores(run)):
            episode = episodes.get(row.key)
            asked = "" if episode is None else episode.opening[-1].text
            said = Prediction("") if episode is None or episode.failed else prediction_of(episode)
            line = {
                "doc_id": number, "doc": {"index": row.item_id, "category": row.category}, "sample": row.sample,
                "target": row.gold, "arguments": {"context": asked}, "resps": [[said.full]], "filtered_resps": [said.text],
                "extracted": row.extracted,
                "doc_hash": _sha(row.item_id), "prompt_hash": _sha(asked), "target_hash": _sha(row.gold),
                "acc": row.score, "decided_by": row.decided_by, "stop_reason": row.stop_reason,
                "token_counts": {"input_tokens": row.prompt_tokens, "output_tokens": row.reply_tokens},
            }  # fmt: skip
            lines.write(json.dumps(line) + "\n")
    return path


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _inspect(run: Path, out: Path) -> Path:
    """Version 2 of its log: a zip of a header, summaries, and a file a sample; images as data URIs."""
    provenance, summary = read_provenance(run), read_summary(run)
    settings = provenance.settings
    created = datetime.now(UTC).isoformat(timespec="seconds")
    spec = {
        "created": created, "task": settings.benchmark, "model": settings.model,
        "config": {"epochs": summary.samples},
        "dataset": {"name": settings.benchmark, "location": settings.data, "samples": summary.items},
        "metadata": {"imported_from": settings.predictions} if settings.imported else {
            "mode": settings.mode, "prompt": settings.prompt, "prompt_sha256": provenance.prompt_sha256,
            "temperature": settings.temperature,
        },
    }  # fmt: skip
    metrics = {name: {"name": name, "value": value} for name, value in summary.scores.items()}
    header = {
        "version": 2, "status": "success", "eval": spec, "plan": {},
        "results": {
            "total_samples": summary.episodes, "completed_samples": summary.evaluated,
            "scores": [{"name": "acc", "scorer": f"deepeyes/{summary.profile}", "metrics": metrics}],
        },
        "stats": {"started_at": created, "completed_at": created},
    }  # fmt: skip
    path = out / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}_{settings.benchmark}.eval"
    episodes, summaries, names = Latest(run), [], _Names()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("_journal/start.json", json.dumps({"version": 2, "eval": spec, "plan": {}}))
        for row in read_scores(run):
            # One at a time: all episodes with their images may not fit into memory.
            log.writestr(f"samples/{names.of(row)}.json", json.dumps(_inspect_sample(row, episodes.get(row.key))))
            summaries.append(_inspect_head(row) | {"input": row.prediction[:100], "completed": True})
        log.writestr("summaries.json", json.dumps(summaries))
        log.writestr("header.json", json.dumps(header))
    return path


class _Names:
    """Names of files for ids, each once: what no file name holds becomes `_`, and ids that then are alike get a number."""

    def __init__(self) -> None:
        self._of_ids: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, row: ScoreRow) -> str:
        """The name of a row's file, without its ending."""
        if row.item_id not in self._of_ids:
            plain = re.sub(r"[^\w.-]+", "_", row.item_id)
            names = (plain if number == 1 else f"{plain}~{number}" for number in itertools.count(1))
            # Some file systems do not tell A from a.
            name = next(name for name in names if name.casefold() not in self._taken)
            self._taken.add(name.casefold())
            self._of_ids[row.item_id] = name
        return f"{self._of_ids[row.item_id]}_epoch_{row.sample + 1}"


def _inspect_head(row: ScoreRow) -> dict[str, object]:
    score = {"value": row.score, "answer": row.extracted, "explanation": row.decided_by}
    return {
        "id": row.item_id,
        "epoch": row.sample + 1,
        "target": row.gold,
        "scores": {} if row.score is None else {"acc": score},
    }


def _inspect_sample(row: ScoreRow, episode: Episode | None) -> dict[str, object]:
    messages = [] if episode is None else [_inspect_message(message) for message in episode.opening]
    for turn in episode.turns if episode is not None else ():
        messages.append({"role": "assistant", "content": turn.reply.primer + turn.reply.text, "source": "generate"})
        if turn.observation is not None:
            messages.append(_inspect_message(turn.observation))
    return _inspect_head(row) | {
        "input": messages[:2], "messages": messages,
        "output": {"model": "", "choices": [{"message": {"role": "assistant", "content": row.prediction}}]},
        "metadata": {"stop_reason": row.stop_reason, "category": row.category, "tool_calls": row.tool_calls},
    }  # fmt: skip


def _inspect_message(message: Message) -> dict[str, object]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.data_uri()}
        for part in message.parts()
    ]
    return {"role": message.role, "content": content if message.images else message.text}


def main(arguments: list[str] | None = None, *, prog: str = "python -m evaluation.exchange.export") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", type=Path, help="a run of `deepeyes eval`")
    parser.add_argument("--to", choices=FORMS, required=True, help="for whom")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    with program(prog):
        sys.stdout.write(f"{export(options.run, options.to, options.out)}\n")


if __name__ == "__main__":
    main()
