"""The site of the documents: its pages are the repository's own, its tutorials run as they stand there, and its two languages say the same."""

import re
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient

import agent.tools
from deepeyes.cli import main
from docs.site.assemble import assemble
from tests.conftest import ROOT
from tests.fake_model_server import model_server

TUTORIALS = ROOT / "docs/tutorials"
NAMES = ("quickstart", "data", "tool", "benchmark", "model")
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)\n```", re.DOTALL)


def written(name, folder):
    """The files that a tutorial shows."""
    files = dict(FILE.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8")))
    for file, text in files.items():
        (folder / file).write_text(text + "\n")
    return files


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_has_the_same_code_and_as_many_paragraphs_in_both_languages(name):
    english, chinese = ((TUTORIALS / f"{name}{suffix}.md").read_text(encoding="utf-8") for suffix in ("", ".zh-CN"))
    assert re.findall(r"^```.*?^```", english, re.DOTALL | re.MULTILINE) == re.findall(r"^```.*?^```", chinese, re.DOTALL | re.MULTILINE)
    assert english.count("\n\n") == chinese.count("\n\n")
    assert re.search(r"[\u4e00-\u9fff]", chinese)


def test_the_data_of_the_tutorial_are_valid_for_both_trainers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(written("data", tmp_path)["make_rows.py"], "make_rows.py", "exec"), {"__name__": "made"})
    with pytest.raises(SystemExit) as exit_:
        main(["data", "validate", "rl.parquet", "sft.json"])
    assert exit_.value.code in (0, None), capsys.readouterr().out


def test_the_tool_of_the_tutorial_plays_its_episode(tmp_path, monkeypatch, capsys):
    files = written("tool", tmp_path)
    monkeypatch.setattr(agent.tools, "__path__", [*agent.tools.__path__, str(tmp_path)])
    exec(compile(files["try_zoom.py"], "try_zoom.py", "exec"), {"__name__": "tried"})
    width, height = map(int, re.findall(r"\d+", capsys.readouterr().out))
    assert abs(width - 320) < 28
    assert abs(height - 240) < 28


async def test_the_benchmark_of_the_tutorial_is_read_and_graded(tmp_path, monkeypatch):
    from evaluation.scoring.grader import Grader, Prediction
    from evaluation.scoring.profiles import load_profile
    from judge.client import Judge, JudgeSettings

    monkeypatch.chdir(tmp_path)
    files, names = written("benchmark", tmp_path), {"__name__": "tried"}
    exec(compile(files["make_tsv.py"], "make_tsv.py", "exec"), names)
    exec(compile(files["colours.py"], "colours.py", "exec"), names)
    (benchmark,) = names["BENCHMARKS"]
    items = list(benchmark.load(tmp_path / "Colours.tsv"))
    assert [item.gold for item in items] == ["red", "green", "blue"]
    assert items[0].read_images()[0].size == (224, 224)
    grader = Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))
    assert (await benchmark.grade(items[0], Prediction("Red"), grader)).correct is True


@pytest.mark.services
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_plays_an_episode_against_a_server(monkeypatch):
    notebook = nbformat.read(TUTORIALS / "loop.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    with model_server(lambda _: "<think>I see a disc.</think> <answer>red, upper right</answer>") as url:
        monkeypatch.setenv("BASE_URL", f"{url}/v1" if not url.endswith("/v1") else url)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.delenv("CODE_SANDBOX_URL", raising=False)
        NotebookClient(notebook, timeout=90, kernel_name="python3").execute()
    shown = [str(output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("red, upper right" in text and "answered" in text.lower() for text in shown)


def test_links_between_pages_hold_in_the_site_and_those_to_code_become_names(tmp_path):
    (tmp_path / "site").mkdir()
    assemble(tmp_path / "site", ["README.md", "README.zh-CN.md", "agent/README.md", "docs/runbook.md", "docs/tutorials/model.zh-CN.md"])
    index = (tmp_path / "site/index.md").read_text()
    assert "](docs/runbook.md)" in index
    assert "](docs/results.md" not in index, "a page that is not there is no link"
    assert "](settings.py)" not in (tmp_path / "site/agent/README.md").read_text()
    assert (tmp_path / "site/index.zh.md").is_file()
    assert (tmp_path / "site/tutorials/model.zh.md").is_file()
    assert "::: agent.episode" in (tmp_path / "site/reference/agent.md").read_text()


@pytest.mark.services
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        ["bash", "scripts/docs.sh", "--site-dir", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index.html", "zh/index.html", "tutorials/tool/index.html", "zh/tutorials/tool/index.html", "reference/agent/index.html"):
        text = (tmp_path / "site" / page).read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?://", text)
        assert not re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+https?://", text)
    assert "run_episode" in text
    assert "自己的工具" in (tmp_path / "site/zh/tutorials/tool/index.html").read_text(encoding="utf-8")
