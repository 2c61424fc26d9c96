"""Nasty predictions for the look-alikes, and what our scoring makes of each."""

import csv
import hashlib
import json

import httpx

from evaluation.benchmarks import load_benchmark
from evaluation.scoring.grader import Grader, Prediction
from evaluation.scoring.profiles import load_profile
from evaluation.smoke.lookalikes import write_lookalike
from evaluation.tables.tsv import raw_rows
from judge.client import Judge, JudgeSettings
from tests.oracle import nasty
from tests.oracle.stub import StubJudge

COUNT = 400
"""Enough for 300 that are compared: what the reference draws at random is left out."""
# benchmark: (kind of predictions, module, class, data set)
JOBS = {
    "vstar": (nasty.choice, "image_mcq", "ImageMCQDataset", "VStarBench"),
    "seedbench2_plus": (nasty.choice, "image_mcq", "ImageMCQDataset", "SEEDBench2_Plus"),
    "hrbench4k": (nasty.choice, "image_mcq", "HRBenchDataset", "HRBench4K"),
    "treebench": (nasty.letter, "image_mcq", "TreeBench", "TreeBench"),
    "mme_realworld_lite": (nasty.letter, "image_mcq", "MMERealWorld", "MME-RealWorld-Lite"),
    "ocrbench": (nasty.contained, "image_vqa", "OCRBench", "OCRBench"),
    "charxiv_descriptive": (nasty.graded, "charxiv", "CharXiv", "CharXiv_descriptive_val"),
    "charxiv_reasoning": (nasty.graded, "charxiv", "CharXiv", "CharXiv_reasoning_val"),
    "chartqa": (nasty.charted, "image_vqa", "ImageVQADataset", "ChartQA_TEST"),
    "mathvista": (nasty.value, "image_vqa", "MathVista", "MathVista_MINI"),
    "mathverse": (nasty.judged_value, "image_vqa", "MathVerse", "MathVerse_MINI"),
    "mathvision": (nasty.vision, "image_vqa", "MathVision", "MathVision"),
    "wemath": (nasty.choice, "image_mcq", "WeMath", "WeMath"),
    "dynamath": (nasty.short, "dynamath", "Dynamath", "DynaMath"),
    "logicvista": (nasty.letters, "image_vqa", "LogicVista", "LogicVista"),
}


MISSING = {"None", "none", "nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "NAN", "<NA>", "-nan", "#N/A", ""}
# Where our scoring is another on purpose; docs/evaluation.md says why, name by name. (benchmark, item, answer, judge's reply) -> bool
QUIRKS = {
    "missing text": lambda name, item, said, reply: MISSING & {said, reply},
    "text as code": lambda name, item, said, reply: name == "mathvision" and " or " in said + reply,
    "letter for a number": lambda name, item, said, reply: (
        name == "mathvision" and not item.choices and "A" in (said, reply)
    ),
    "empty short answer": lambda name, item, said, reply: name == "dynamath" and '"short answer": ""' in said,
    "judge in tags": lambda name, item, said, reply: "<answer>" in reply,
}


def write_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def box_golds(path):
    """Some of MathVision's gold answers in a box, as such files have them."""
    rows = [values for _, values in raw_rows(path, ())]
    for number, row in enumerate(rows):
        if number % 6 == 0 and row["choices"] == "[]" and "{" not in row["answer"]:
            row["answer"] = f"\\boxed{{{row['answer']}}}"
    write_rows(path, rows)


class Material:
    """One benchmark's items with an answer to each and the judge's replies."""

    def __init__(self, name, folder, profile):
        self.name, self.profile = name, load_profile(profile)
        self.data = write_lookalike(name, folder / name, count=COUNT, charxiv_key=self.profile.charxiv_key)
        if name == "mathvision":
            box_golds(self.data)
        self.items = list(load_benchmark(name).load(self.data))
        self.predictions, self.judge = nasty.make(self.items, JOBS[name][0])

    def sha256(self):
        """Of what is scored, so that a golden score is never held against another question."""
        told = [
            [one.item_id, one.gold, dict(one.choices), self.predictions[one.item_id], self.judge[one.item_id]]
            for one in self.items
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def quirks(self, item):
        """Names of the quirks that an item's answer touches."""
        said, reply = self.predictions[item.item_id], self.judge[item.item_id]["extract"]
        return {name for name, touches in QUIRKS.items() if touches(self.name, item, said, reply)}

    def job(self):
        """What tests/oracle/reference.py is told."""
        _, module, class_, dataset = JOBS[self.name]
        path = self.data.parent / "predictions" / "nasty.tsv"
        path.parent.mkdir()
        rows = []
        for _, values in raw_rows(self.data, ()):
            values.pop("image", None)
            rows.append(values | {"prediction": self.predictions[values["index"]]})
        write_rows(path, rows)
        return {
            "benchmark": self.name, "module": module, "class": class_, "dataset": dataset, "model": "stub", "predictions": str(path),
            "judge": self.judge, "by_item": True,
        }  # fmt: skip

    async def ours(self):
        """item id -> (score, who decided)."""
        stub = StubJudge(self.judge)

        def handle(request):
            prompt = json.loads(request.content)["messages"][0]["content"]
            return httpx.Response(200, json={"choices": [{"message": {"content": stub.reply(prompt)}}]})

        judge = Judge(JudgeSettings(base_urls=("http://stub/v1",), attempts=1), transport=httpx.MockTransport(handle))
        grader = Grader(self.profile, judge, parity=True)
        found = {}
        for item in self.items:
            stub.item = item.item_id
            said = self.predictions[item.item_id]
            grade = await load_benchmark(self.name).grade(item, Prediction(said, said), grader)
            found[item.item_id] = (grade.score, grade.decided_by)
        return found
