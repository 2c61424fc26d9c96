"""The examples of the documents are executed as they stand there."""

import re

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["judge/README.md", "reinforcement_learning/README.md"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_python_example_runs(name):
    examples = re.findall(r"```python\n(.*?)\n```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, name, "exec"), {"__name__": "example"})


async def test_the_example_of_a_new_benchmark_is_one_file_that_loads_and_scores(tmp_path):
    from evaluation.scoring.grader import Grader, Prediction
    from evaluation.scoring.profiles import load_profile
    from evaluation.smoke.lookalikes import write_lookalike
    from judge.client import Judge, JudgeSettings

    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8").split("## Adding a benchmark")[1]
    (example,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(example, "docs/evaluation.md", "exec"), names)
    (benchmark,) = names["BENCHMARKS"]
    items = list(benchmark.load(write_lookalike("chartqa", tmp_path)))
    assert items[0].read_images()
    grader = Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))
    assert (await benchmark.grade(items[0], Prediction(items[0].gold), grader)).correct is True
    assert (await benchmark.grade(items[0], Prediction("3"), grader)).correct is False


def test_every_benchmark_stands_in_the_documents_tables():
    from evaluation.benchmarks import benchmarks

    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    table = text.split("## Benchmarks")[1].split("## Tools")[0]
    assert set(re.findall(r"`([a-z0-9_]+)`", table)) & set(benchmarks()) == set(benchmarks())
