"""Run by the oracle environment: score prediction files with the reference's own `evaluate()`.

    python reference.py JOBS.json RESULTS.json

Its package cannot be imported as a whole (models, APIs); the folders are mounted as empty packages, and the real files of the data sets
are imported from them.
"""

import importlib
import importlib.util
import json
import pathlib
import sys
import types

import pandas as pd

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from stub import StubJudge


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


def main(jobs_path, results_path):
    root = pathlib.Path(importlib.util.find_spec("vlmeval").origin).parent
    mount("vlmeval", root)
    mount("vlmeval.dataset", root / "dataset")
    utils = mount("vlmeval.dataset.utils", root / "dataset/utils")
    utils.DEBUG_MESSAGE = ""
    current = {}
    utils.build_judge = lambda **_: current["judge"]
    results = {}
    for job in json.loads(pathlib.Path(jobs_path).read_text()):
        current["judge"] = StubJudge(job["judge"])
        module = importlib.import_module(f"vlmeval.dataset.{job['module']}")
        dataset = object.__new__(getattr(module, job["class"]))
        dataset.dataset_name = job["dataset"]
        frame = pd.read_csv(job["predictions"], sep="\t")
        dataset.data = frame.drop(columns=["prediction"])
        path = pathlib.Path(job["predictions"]).with_suffix(".xlsx")
        frame.to_excel(path, index=False)
        try:
            # CharXiv's evaluate() cannot be told a model: it passes the name on twice.
            named = {} if job["module"] == "charxiv" else {"model": job["model"]}
            found = dataset.evaluate(str(path), nproc=1, **named)
            results[job["benchmark"]] = plain(found)
        except Exception as error:  # noqa: BLE001 - what the reference raises is its result
            results[job["benchmark"]] = {"error": f"{type(error).__name__}: {error}"}
    pathlib.Path(results_path).write_text(json.dumps(results, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
