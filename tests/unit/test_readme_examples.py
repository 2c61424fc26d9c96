"""The examples of the judge's and the rewards' READMEs are executed as they stand there."""

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
