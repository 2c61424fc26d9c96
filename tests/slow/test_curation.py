"""A curation file on a synthetic family, with the tiny models behind a real vLLM and calls run by a real sandbox."""

import json
import subprocess
import sys

import pytest
import yaml

from data.families import load_family
from data.families._files import Amounts, write_family
from serving.processes import marked
from serving.vllm import serve_checkpoint
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


def test_a_curation_file_makes_a_set_that_names_what_each_step_did(quickstart, sandbox_url, tmp_path):
    write_family(load_family("mark"), tmp_path / "mark", amounts=Amounts(sft=1, rl_train=24, benchmark=4))
    checkpoint = quickstart.directory / "models/rl"
    with marked(), serve_checkpoint(checkpoint, log=tmp_path / "vllm.log", cpu=True, served_name="tiny") as url:
        content = {
            "name": "mark_set",
            "store": str(tmp_path / "store"),
            "run": str(tmp_path / "run"),
            "sources": [
                {"name": "mark", "path": str(tmp_path / "mark/rl_train.parquet"), "licence": "apache-2.0", "group": "look"}
            ],
            "models": {"base": {"model": "tiny", "base_urls": [url], "max_in_flight": 4}},
            "agent": {
                "prompt": "tiles", "tools": ["python"], "sandbox_urls": [sandbox_url], "max_turns": 3, "max_reply_tokens": 112,
                "image_max_pixels": 12544,
            },
            "steps": [
                {"check": {}},
                {"dedupe": {}},
                {"decontaminate": {"benchmarks": {"families": str(tmp_path / "mark/benchmark.tsv")}, "on_hit": "mark"}},
                {"verify_gold": {}},
                {"sample": {"as": "plain", "with": "base", "mode": "think", "k": 2, "max_reply_tokens": 48}},
                {"sample": {"as": "tools", "with": "base", "mode": "agent", "k": 2}},
                {"split": {"rl": {"tools.right": {"min": 0, "max": 1}}, "cold": {"tools.right": {"min": 2}}}},
                {"synthesise": {"on": "cold", "with": ["base"], "k": 2, "keep": {"min_calls": 1}}},
                {"export": {"rl": None, "sft": "llamafactory", "card": True}},
            ],
        }  # fmt: skip
        path = tmp_path / "mark_set.yaml"
        path.write_text(yaml.safe_dump(content))
        for _ in range(2):
            result = subprocess.run(
                [sys.executable, "-m", "deepeyes.cli", "curate", "run", str(path)],
                cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
            )  # fmt: skip
            assert result.returncode == 0, result.stdout + result.stderr
    manifest = json.loads((tmp_path / "store/sets/mark_set/manifest.json").read_text())
    assert all(step["in"] == step["kept"] + step["dropped"] + step["open"] for step in manifest["steps"])
    assert not any(step["waiting"] for step in manifest["steps"])
    # Of two runs the second asked for nothing.
    answers = 2 * 2 * manifest["steps"][4]["kept"]
    assert manifest["models"]["base"]["calls"] >= answers
    talks = json.loads((tmp_path / "store/sets/mark_set/sft.json").read_text())
    assert talks
    for talk in talks:
        assert len(talk["images"]) == sum(message["content"].count("<image>") for message in talk["messages"]) >= 2
        assert all((tmp_path / "store/sets/mark_set" / name).is_file() for name in talk["images"])
    page = (tmp_path / "run/report.html").read_text()
    assert "06_tools" in page
    assert "data:image/" in page
