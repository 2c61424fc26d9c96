"""Run by the oracle environment: score prediction files with a reference's own `evaluate()`.

    python reference.py JOBS.json RESULTS.json [FOLDER]

FOLDER is another `vlmeval` than the installed one: VLMEvalKit's of some commit, or the fork's. The package cannot be imported as a
whole (models, APIs); its folders are mounted as empty packages, and the real files of the data sets are imported from them.
"""

import importlib
import importlib.util
import json
import pathlib
import pickle
import sys
import tempfile
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from stub import StubJudge

CURRENT = {}
MARKS = ("hit", "score", "correct")


def mount(name, path):
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module
    return module


def plain(value):
    """Tables as {row: {column: value}}, whatever the reference returned."""
    if isinstance(value, pd.DataFrame):
        return json.loads(value.to_json(orient="records"))
    return value


def one_by_one(func, tasks, nproc=1, save=None, keys=None, **_):
    """The reference's own pool, but the judge is told whose turn it is. In a thread, as there."""
    done, results = {}, []
    with ThreadPoolExecutor(1) as pool:
        for key, task in zip(keys, tasks, strict=True):
            row = (
                task["item"]
                if isinstance(task, dict) and "item" in task
                else task["line"]
                if isinstance(task, dict)
                else task[-1]
            )
            CURRENT["judge"].item = row["index"] if CURRENT["by_item"] else None
            future = pool.submit(func, **task) if isinstance(task, dict) else pool.submit(func, *task)
            results.append(future.result())
            done[key] = results[-1]
    if save is not None:
        pathlib.Path(save).write_bytes(pickle.dumps(done))
    return results


class OnePool:
    """For ChartQA's `mp.Pool`."""

    def __init__(self, *_):
        pass

    def map(self, func, lines):
        found = []
        for line in lines:
            CURRENT["judge"].item = line["index"] if CURRENT["by_item"] else None
            found.append(func(line))
        return found


def prepare(folder):
    if not (folder / "utils").is_dir():
        raise SystemExit(f"{folder} is no vlmeval package")
    for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
        mount(name, folder.joinpath(*name.split(".")[1:]))
    utils = sys.modules["vlmeval.dataset.utils"]
    utils.DEBUG_MESSAGE = ""
    utils.build_judge = lambda **_: CURRENT["judge"]
    # The fork names the older package; what it offers is the same.
    sys.modules.setdefault("latex2sympy2", importlib.import_module("latex2sympy2_extended"))
    importlib.import_module("vlmeval.utils").track_progress_rich = one_by_one


def per_item(job, path, dataset):
    """index -> score of each item, from the files that `evaluate()` leaves; None if it leaves none."""
    if job["benchmark"] == "ocrbench":
        return {row["index"]: dataset.evaluate(one_row(row))["Final Score"] for _, row in pd.read_excel(path).iterrows()}
    check = {"mathvista": "mathvista", "mathvision": "mathv"}.get(job["benchmark"])
    for file in sorted(path.parent.glob(f"{path.stem}*")):
        if file == path or file.suffix not in (".xlsx", ".tsv"):
            continue
        frame = pd.read_excel(file) if file.suffix == ".xlsx" else pd.read_csv(file, sep="\t")
        if check and "res" in frame:
            module = importlib.import_module(f"vlmeval.dataset.utils.{check}")
            return {row["index"]: float(bool(module.post_check(row, prefetch=False))) for _, row in frame.iterrows()}
        if "eval_match" in frame:
            return {row["index"]: float("True" in str(row["eval_match"])) for _, row in frame.iterrows()}
        found = next((name for name in MARKS if name in frame), None)
        if found is not None and "index" in frame:
            drawn = frame["log"].astype(str).str.contains("randomly generate") if "log" in frame else [False] * len(frame)
            return {
                index: None if random else float(value)
                for index, value, random in zip(frame["index"], frame[found], drawn, strict=True)
            }
    return None


def one_row(row):
    path = pathlib.Path(tempfile.mkdtemp()) / "one.xlsx"
    pd.DataFrame([row]).to_excel(path, index=False)
    return str(path)


def run(job):
    CURRENT.update(judge=StubJudge(job["judge"]), by_item=job.get("by_item", False))
    module = importlib.import_module(f"vlmeval.dataset.{job['module']}")
    if hasattr(module, "mp"):
        module.mp = types.SimpleNamespace(Pool=OnePool)
    dataset = object.__new__(getattr(module, job["class"]))
    dataset.dataset_name = job["dataset"]
    # A prediction is a text in the reference's own files, whatever it looks like.
    frame = pd.read_csv(job["predictions"], sep="\t", converters={"prediction": str})
    dataset.data = frame.drop(columns=["prediction"])
    path = pathlib.Path(job["predictions"]).with_suffix(".xlsx")
    frame.to_excel(path, index=False)
    named = {"model": job["model"]}
    if job["module"] == "charxiv" and CURRENT["installed"]:
        # The package's evaluate() cannot be told a model: it passes the name on twice.
        named = {}
    found = {"table": plain(dataset.evaluate(str(path), nproc=1, **named))}
    if CURRENT["by_item"]:
        items = per_item(job, path, dataset)
        found["items"] = None if items is None else {str(index): value for index, value in items.items()}
    return found


def main(jobs_path, results_path, folder=None):
    CURRENT["installed"] = folder is None
    package = pathlib.Path(folder) if folder else pathlib.Path(importlib.util.find_spec("vlmeval").origin).parent
    prepare(package)
    results = {}
    for job in json.loads(pathlib.Path(jobs_path).read_text()):
        try:
            results[job["benchmark"]] = run(job)
        except Exception as error:  # noqa: BLE001 - what the reference raises is its result
            results[job["benchmark"]] = {"error": f"{type(error).__name__}: {error}"}
    pathlib.Path(results_path).write_text(
        json.dumps(results, default=lambda value: value.item() if isinstance(value, np.generic) else str(value))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
