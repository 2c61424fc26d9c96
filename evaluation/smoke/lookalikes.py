"""Small synthetic files in the true format of every benchmark: what loaders, scorers and the smoke suite are tried on.

No row of a real benchmark is in them; equal seeds write equal files. Each holds the odd cases of its format: an image that
refers to another row, a list of images, list literals, missing options.
"""

from __future__ import annotations

import base64
import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.smoke.lookalike_tables import COLOURS, Rows, mmsearch, mmsearch_r1, picture, realx, tir

_LETTERS = "ABCD"
_ROTATIONS = 4
_VERSIONS = ("Vision Only", "Vision Dominant", "Vision Intensive", "Text Lite", "Text Dominant")
_OCR = (
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition", "Handwriting Recognition",
    "Digit String Recognition", "Non-Semantic Text Recognition", "Scene Text-centric VQA", "Doc-oriented VQA",
    "Key Information Extraction", "Handwritten Mathematical Expression Recognition",
)  # fmt: skip
Writer = Callable[[Path, random.Random, int], Path]


def _b64(colour: str, text: str = "") -> str:
    return base64.b64encode(picture(colour, text=text)).decode()


def _tsv(path: Path, rows: Rows) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _choice_rows(draw: random.Random, count: int, categories: Sequence[str]) -> Rows:
    rows: Rows = []
    for index in range(count):
        names = list(COLOURS)
        draw.shuffle(names)
        gold = draw.choice(names)
        image = _b64(gold, str(index))
        if index == 1:
            image, gold = "0", rows[0][rows[0]["answer"]]  # the image of row 0
            names = [rows[0][letter] for letter in _LETTERS]
        if index == 2:
            image = str([image, _b64("black", "second")])
        row = {"index": index, "image": image, "question": f"What colour is tile {index}?"}
        row |= dict(zip(_LETTERS, names, strict=True))
        rows.append(row | {"answer": _LETTERS[names.index(gold)], "category": categories[index % len(categories)]})
    return rows


def _vstar(folder: Path, draw: random.Random, count: int) -> Path:
    return _tsv(folder / "VStarBench.tsv", _choice_rows(draw, count, ("direct_attributes", "relative_position")))


def _seed(folder: Path, draw: random.Random, count: int) -> Path:
    rows = _choice_rows(draw, count, ("chart", "map", "web"))
    rows[0]["hint"] = "Look at the middle."
    return _tsv(folder / "SEEDBench2_Plus.tsv", rows)


def _hrbench(name: str) -> Writer:
    def write(folder: Path, draw: random.Random, count: int) -> Path:
        rows: Rows = []
        for question in range(max(1, count // _ROTATIONS)):
            names = list(COLOURS)
            gold, image = draw.choice(names), ""
            for cycle in range(_ROTATIONS):
                turned = names[cycle:] + names[:cycle]
                index = question * _ROTATIONS + cycle
                image = _b64(gold, str(question)) if cycle == 0 else str(question * _ROTATIONS)
                row = {"index": index, "image": image, "question": f"What colour is tile {question}?"}
                row |= dict(zip(_LETTERS, turned, strict=True))
                category = ("single", "cross")[question % 2]
                rows.append(row | {"answer": _LETTERS[turned.index(gold)], "category": category, "cycle_category": cycle})
        return _tsv(folder / f"{name}.tsv", rows)

    return write


def _treebench(folder: Path, draw: random.Random, count: int) -> Path:
    tasks = ("Perception/Attributes", "Perception/OCR", "Reasoning/Ordering", "Reasoning/Comparison", "Perception/Material")
    rows = _choice_rows(draw, count, tasks)
    for row in rows:
        x, y = draw.randrange(30), draw.randrange(30)
        row["target_instances"] = str([[x, y, x + 20, y + 20]])
        if row["category"] == "Perception/OCR":  # such rows have no options of their own
            options = "\n".join(f"{letter}. {row.pop(letter)}" for letter in _LETTERS)
            row["question"] += f"\n{options}"
    return _tsv(folder / "TreeBench.tsv", rows)


def _mme_rows(draw: random.Random, count: int) -> Rows:
    categories = [
        ("Perception/Monitoring", "vehicle/color attribute"), ("Perception/OCR with Complex Context", "Scene Text"),
        ("Reasoning/Diagram and Table", "Table"), ("Reasoning/Autonomous_Driving", "intention"),
    ]  # fmt: skip
    rows = _choice_rows(draw, count, ("",))
    for row in rows:
        options = [f"({letter}) {row.pop(letter)}" for letter in _LETTERS] + ["(E) The image does not feature it."]
        task, fine = categories[row["index"] % len(categories)]
        row |= {"multi-choice options": options, "category": task, "l2-category": fine}
    return rows


def _mme_lite(folder: Path, draw: random.Random, count: int) -> Path:
    rows = _mme_rows(draw, count)
    for row in rows:
        row["multi-choice options"] = str(row["multi-choice options"])
    return _tsv(folder / "MME-RealWorld-Lite.tsv", rows)


def _mme(folder: Path, draw: random.Random, count: int) -> Path:
    """JSON shards, as the whole set comes."""
    rows = [row for row in _mme_rows(draw, count) if len(str(row["image"])) > 64]
    target = folder / "MME-RealWorld"
    target.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2 or 1
    for number, part in enumerate((rows[:half], rows[half:])):
        if part:
            (target / f"part_{number}.json").write_text(json.dumps(part), encoding="utf-8")
    return target


def _ocrbench(folder: Path, draw: random.Random, count: int) -> Path:
    rows: Rows = []
    for index in range(max(count, len(_OCR))):
        category = _OCR[index % len(_OCR)]
        word = draw.choice(("STOP", "Exit 5", "Main Street")) if "Mathematical" not in category else r"\frac { x } { 2 }"
        row = {"index": index, "image": _b64("blue", word), "question": "What is written in the image?"}
        rows.append(row | {"answer": str([word, "none"]), "category": category})
    return _tsv(folder / "OCRBench.tsv", rows)


def _charxiv(kind: str, key: str) -> Writer:
    def write(folder: Path, draw: random.Random, count: int) -> Path:
        rows: Rows = []
        for index in range(count):
            answer = str(draw.randrange(9))
            group = index % 19 + 1 if kind == "descriptive" else index % 4 + 1
            query = (
                f"Compare the response with the ground truth.\nGround truth: {answer}\nResponse: {{PREDICTION}}\n"
                f'Reply with JSON: {{"{key}": "...", "score": 0 or 1}}'
            )
            row = {"index": index, "image": _b64("green", answer), "question": f"How many lines are there? ({index})"}
            row |= {"answer": answer, "grading_query": query, "qid" if kind == "descriptive" else "inst_category": group}
            rows.append(row)
        return _tsv(folder / f"CharXiv_{kind}_val.tsv", rows)

    return write


def _chartqa(folder: Path, draw: random.Random, count: int) -> Path:
    answers = ("14", "['yes']", "25%", "0", "['2018', '2018.0']", "Blue", "1.5")
    rows = [
        {"index": i, "image": _b64("black", str(i)), "question": f"What is the value at {i}?", "answer": answers[i % len(answers)],
         "split": ("test_human", "test_augmented")[i % 2]}
        for i in range(count)
    ]  # fmt: skip
    return _tsv(folder / "ChartQA_TEST.tsv", rows)


def _mathvista(folder: Path, draw: random.Random, count: int) -> Path:
    rows: Rows = []
    for index in range(count):
        kind = ("integer", "float", "multi_choice", "text", "list")[index % 5]
        number = draw.randrange(1, 9)
        choices = [str(number + step) for step in range(4)]
        draw.shuffle(choices)
        multiple = kind == "multi_choice"
        answer = {"float": f"{number}.5", "text": "north", "list": f"[{number}, 2]"}.get(kind, str(number))
        rows.append(
            {
                "index": index, "image": _b64("red", str(number)), "question": f"Question: how much is it? ({index})",
                "answer": answer, "question_type": "multi_choice" if multiple else "free_form",
                "answer_type": "text" if multiple else kind, "choices": str(choices) if multiple else "[]",
                "answer_option": _LETTERS[choices.index(answer)] if multiple else "",
                "skills": str(["arithmetic reasoning", "statistical reasoning"][: 1 + index % 2]),
                "task": ("figure question answering", "math word problem")[index % 2],
            }
        )  # fmt: skip
    return _tsv(folder / "MathVista_MINI.tsv", rows)


def _mathverse(folder: Path, draw: random.Random, count: int) -> Path:
    rows: Rows = []
    for index in range(count):
        answer = draw.choice(("A", "12", "2\\sqrt{3}"))
        subject = ("Plane Geometry", "Solid Geometry")[index % 2]
        rows.append(
            {
                "index": index, "image": _b64("blue", str(index)), "question": f"Find x. ({index})", "answer": answer,
                "problem_version": _VERSIONS[index % len(_VERSIONS)], "question_for_eval": "Find x.",
                "metadata": str({"split": "testmini", "source": "made", "subject": subject, "subfield": "Length"}),
                "query_cot": "Think, then find x.",
            }
        )  # fmt: skip
    return _tsv(folder / "MathVerse_MINI.tsv", rows)


def _mathvision(folder: Path, draw: random.Random, count: int) -> Path:
    rows: Rows = []
    for index in range(count):
        choices = ["3", "5", "7", "9", "11"] if index % 2 else []
        answer = draw.choice("ABCDE") if choices else draw.choice(("12", "0.5", r"\frac{1}{2}", "3"))
        row = {"index": index, "image": _b64("green", str(index)), "question": f"How many are there? ({index})"}
        rows.append(row | {"answer": answer, "choices": str(choices), "category": ("algebra", "counting")[index % 3 == 0]})
    return _tsv(folder / "MathVision.tsv", rows)


def _wemath(folder: Path, draw: random.Random, count: int) -> Path:
    """`count` rows at least, whole problems only."""
    rows: Rows = []
    problem = 0
    image = _b64("black")
    while len(rows) < count:
        steps = 2 + (problem % 5 < 3)
        for part in [*map(str, range(1, steps + 1)), "multi"]:
            index = len(rows)
            row = {"index": index, "image": image if index == 0 else "0", "question": f"Which is it? ({index})"}
            row |= {letter: str(number * 3 + index % 3) for number, letter in enumerate(_LETTERS)}
            row |= {"answer": draw.choice(_LETTERS), "ID": f"p{problem}", "key": f"{steps}steps_{part}"}
            rows.append(row | {"knowledge concept": "Observing Objects"})
        problem += 1
    return _tsv(folder / "WeMath.tsv", rows)


def _dynamath(folder: Path, draw: random.Random, count: int) -> Path:
    """Ten variants of each question; `qid` is the row of its first."""
    rows: Rows = []
    for question in range(max(1, count // 10)):
        kind = ("float", "multiple choice", "text")[question % 3]
        for variant in range(1, 11):
            answer = {"float": f"{draw.randrange(1, 90) / 8:.3f}", "multiple choice": draw.choice(_LETTERS), "text": "yes"}[
                kind
            ]
            rows.append(
                {
                    "index": len(rows), "image": _b64("red", str(variant)), "question": f"Is f even? ({question}, {variant})",
                    "answer": answer, "answer_type": kind, "subject": ("algebra", "graph theory")[question % 2],
                    "knowledge_level": ("high school", "undergraduate")[question % 2], "qid": question * 10, "varid": variant,
                }
            )  # fmt: skip
    return _tsv(folder / "DynaMath.tsv", rows)


def _logicvista(folder: Path, draw: random.Random, count: int) -> Path:
    skills = ("inductive", "deductive", "numerical", "spatial", "mechanical")
    rows = [
        {"index": i, "image": _b64("blue", str(i)), "question": f"Which comes next? Select from A, B, C, D. ({i})",
         "answer": draw.choice(("A", "B", "C, A", "D")), "skill": str([skills[i % 5]])}
        for i in range(max(count, len(skills)))
    ]  # fmt: skip
    return _tsv(folder / "LogicVista.tsv", rows)


def _simplevqa(folder: Path, draw: random.Random, count: int) -> Path:
    rows = [
        {"index": i, "image": _b64(colour, str(i)), "question": f"Which colour is it? ({i})", "answer": colour,
         "language": ("EN", "CN")[i % 2]}
        for i, colour in enumerate(draw.choices(list(COLOURS), k=count))
    ]  # fmt: skip
    return _tsv(folder / "SimpleVQA.tsv", rows)


_WRITERS: dict[str, Writer] = {
    "vstar": _vstar,
    "seedbench2_plus": _seed,
    "hrbench4k": _hrbench("HRBench4K"),
    "hrbench8k": _hrbench("HRBench8K"),
    "treebench": _treebench,
    "mme_realworld_lite": _mme_lite,
    "mme_realworld": _mme,
    "ocrbench": _ocrbench,
    "charxiv_descriptive": _charxiv("descriptive", "extracted_answer"),
    "charxiv_reasoning": _charxiv("reasoning", "extracted_answer"),
    "chartqa": _chartqa,
    "mathvista": _mathvista,
    "mathverse": _mathverse,
    "mathvision": _mathvision,
    "wemath": _wemath,
    "dynamath": _dynamath,
    "logicvista": _logicvista,
    "simplevqa": _simplevqa,
    "fvqa": mmsearch_r1("fvqa_test.parquet", "fvqa_test"),
    "infoseek": mmsearch_r1("infoseek_sub_2k.parquet", "infoseek"),
    "mmsearch": mmsearch,
    "realx": realx,
    "tir_bench": tir,
}


def lookalike_names() -> list[str]:
    """Benchmarks that there is a look-alike of; the toy task writes its own files."""
    return list(_WRITERS)


def write_lookalike(benchmark: str, folder: Path, *, count: int = 8, seed: int = 0, charxiv_key: str | None = None) -> Path:
    """Write a small file in a benchmark's format.

    Args:
        benchmark: Its name.
        folder: Made if it is not there.
        count: Rows, about: formats that come in groups are rounded.
        seed: Equal seeds write equal files.
        charxiv_key: `extract_answer` writes CharXiv's older version.

    Returns:
        The path to give as `--data`.

    Raises:
        LookupError: There is none of that benchmark.
    """
    if benchmark not in _WRITERS:
        raise LookupError(f"no look-alike of {benchmark!r}; there are: {', '.join(_WRITERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    writer = _WRITERS[benchmark]
    if charxiv_key is not None and benchmark.startswith("charxiv"):
        writer = _charxiv(benchmark.partition("_")[2], charxiv_key)
    return writer(folder, random.Random(f"{benchmark}{seed}"), count)  # noqa: S311 - a toy, not a secret
