import importlib.metadata
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from agent.episode import Episode, StopReason, Turn
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import parse_action, render_code_observation
from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter, read_rollouts
from deepeyes.chat.events import EpisodeEnded
from deepeyes.chat.terminal import TerminalView
from deepeyes.cli import main
from reinforcement_learning.logging_board import board_rows
from serving.processes import ProgramFailed, marked, run, stop_marked
from tests.conftest import ROOT, png, told
from viewer.charts import line_chart


def call(capsys, *arguments) -> tuple[object, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return told(exit_.value), capsys.readouterr().out


def recorded(directory, **facts) -> Episode:
    code = Reply(text="<code>\n```python\n1 < 2\n```\n</code>", finish="stop", token_ids=(5, 6), logprobs=(-0.1, -0.2))
    answer = Reply(text="<think>t</think><answer>a&b</answer>", finish="stop", token_ids=(7,), logprobs=(-0.3,))
    observation = render_code_observation(stdout="<b>", stderr="", images=[ImageFile(png(40, 40))])
    episode = Episode(
        opening=(Message("system", "s"), Message("user", "<image>q", (ImageFile(png()),))),
        turns=[
            Turn(reply=code, action=parse_action(code.text), observation=observation),
            Turn(reply=answer, action=parse_action(answer.text)),
        ],
        end=StopReason.ANSWERED,
        answer="a&b",
    )
    TrajectoryWriter(directory).write(episode, RolloutFacts(**facts))
    return episode


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("sandbox serve", "code_sandbox.server"),
        ("sandbox attack", "code_sandbox.attacks"),
        ("sandbox doctor", "code_sandbox.server.doctor"),
        ("view", "viewer"),
    ],
)
def test_a_program_of_a_room_of_its_own_has_the_same_options_under_both_its_names(capsys, monkeypatch, command, module):
    monkeypatch.setenv("COLUMNS", "1000")
    code, under_deepeyes = call(capsys, *command.split(), "--help")
    alone = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert code == 0
    assert f"python -m {module} " in alone
    assert alone.replace(f"python -m {module} ", f"deepeyes {command} ") == under_deepeyes


@pytest.mark.parametrize("command", ["sandbox serve", "sandbox run", "view", "doctor"])
def test_an_unknown_option_is_refused(capsys, command):
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "somewhere", "--lag-code"])
    assert exit_.value.code == 2
    assert "--lag-code" in capsys.readouterr().err


def test_export_is_of_a_training_run_or_with_a_form_of_an_evaluation(capsys, tmp_path):
    code, _ = call(capsys, "export", str(tmp_path), "--out", str(tmp_path / "model"))
    assert "no complete checkpoint" in str(code)
    assert "run.directory" in str(code)
    code, _ = call(capsys, "export", str(tmp_path), "--to", "vlmevalkit", "--out", str(tmp_path / "predictions"))
    assert "no complete checkpoint" not in str(code)
    assert code


def test_what_stands_behind_sandbox_bench_is_the_benchmarks(capfd):
    for arguments, code, said in ((["--help"], 0, "--peer-url"), (["--rounds", "none"], 2, "invalid int value: 'none'")):
        with pytest.raises(SystemExit) as ended:
            main(["sandbox", "bench", *arguments])
        assert ended.value.code == code
        written = capfd.readouterr()
        assert said in written.out + written.err


def test_doctor_says_what_is_there_and_what_to_do(capsys):
    code, output = call(capsys, "doctor")
    assert code == 0
    assert "verl 0.9.1" in output.replace("\n", " ")
    assert "bash judge/serve.sh" in output.replace("\n", " ")


@pytest.mark.parametrize(("answer", "code", "word"), [("B", 0, "correct"), ("C", 1, "incorrect"), ("dog", 3, "undecided")])
def test_judge_answers_by_its_exit_status_too(capsys, answer, code, word):
    assert call(capsys, "judge", "--gold", "B", "--answer", answer)[0] == code
    assert call(capsys, "judge", "--gold", "B", "--answer", answer)[1].startswith(word)


def test_search_builds_an_index_and_shows_what_the_model_would_see(capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"title": "T", "text": "about pandas", "link": "l"}))
    assert call(capsys, "search", "index", str(tmp_path / "p.jsonl"))[0] == 0
    code, output = call(capsys, "search", "query", "panda", "--index", str(tmp_path / "p.jsonl.index"))
    assert code == 0
    assert "A Google search for 'panda' found 1 results:" in output


def test_a_recording_is_made_shown_exported_and_merged(capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"title": "T", "text": "about pandas", "link": "l"}))
    first, second = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    for recording, query in ((first, "panda"), (second, "bear"), (second, "panda")):
        settings = ["--set", "mode=record", "--set", f"recording={recording}"]
        assert call(capsys, "search", "query", query, "--index", str(tmp_path / "p.jsonl"), *settings)[0] == 0
    replay = ["--set", "mode=replay", "--set", f"recording={first}", "--set", f"path={tmp_path / 'gone'}"]
    assert "about pandas" in call(capsys, "search", "query", "PANDA", *replay)[1]
    assert str(call(capsys, "search", "query", "bear", *replay)[0]).startswith(
        "deepeyes search: 'bear' (search, local) is not in"
    )
    assert "1 added, 0 kept as they were" in call(capsys, "search", "merge", str(first), str(second))[1]
    assert "local          search          2" in call(capsys, "search", "stats", str(first))[1]
    assert call(capsys, "search", "export", str(first), "--out", str(tmp_path / "e.jsonl"))[0] == 0
    assert {json.loads(line)["query"] for line in (tmp_path / "e.jsonl").read_text().splitlines()} == {"panda", "bear"}


def test_an_error_is_one_line_and_no_traceback(capsys, tmp_path):
    code, _ = call(capsys, "view", str(tmp_path))
    assert str(code).startswith("deepeyes view: no episodes.jsonl in")
    code, _ = call(capsys, "sandbox", "run", str(tmp_path / "none.py"))
    assert "No such file" in str(code)


def test_view_shows_code_output_and_images_and_escapes_them(capsys, tmp_path):
    recorded(tmp_path, item_id="i", gold="a", reward=0.5, step=3, correct=False)
    assert call(capsys, "view", str(tmp_path), "--out", str(tmp_path / "episodes.html"))[0] == 0
    page = (tmp_path / "episodes.html").read_text()
    assert "<pre>1 &lt; 2</pre>" in page
    assert "&lt;b&gt;" in page
    assert "a&amp;b" in page
    assert page.count("data:image/png") == 2
    assert "step 3 · i · reward 0.50" in page


def test_rl_logging_board_rows_hold_every_sampled_token_with_the_reward_on_the_last(tmp_path):
    recorded(tmp_path / "rollouts", step=1, gold="a", reward=0.9)
    recorded(tmp_path / "rollouts", step=1, gold="a")  # failed: no reward
    (row,) = board_rows(tmp_path, lambda token: f"t{token}")
    assert row["response_tokens"] == ["t5", "t6", "t7"]
    assert row["logprobs"] == [-0.1, -0.2, -0.3]
    assert row["token_rewards"] == [0.0, 0.0, 0.9]
    assert (row["reward"], row["ground_truth"], row["step"]) == (0.9, "a", 1)
    assert "ref_logprobs" not in row
    (scored, _) = read_rollouts(tmp_path / "rollouts")
    (tmp_path / "ref_log_probs").mkdir()
    np.savez(tmp_path / "ref_log_probs/1.npz", **{scored.episode.episode_id: np.array([-0.5, -1.0, -2.0], np.float32)})
    (row,) = board_rows(tmp_path, lambda token: f"t{token}")
    assert row["ref_logprobs"] == [-0.5, -1.0, -2.0]


def test_a_chart_survives_no_points_one_point_and_equal_points():
    assert "Nothing was recorded" in line_chart({"a": []}, x_label="x")
    assert "<polyline" in line_chart({"a": [(1, 0.5)]}, x_label="x")
    assert "nan" not in line_chart({"a": [(1, 0.0), (2, 0.0)]}, x_label="x")


def test_whatever_a_program_started_ends_with_it(tmp_path):
    code = "import subprocess, sys; subprocess.Popen(['sleep', '300'], start_new_session=True); sys.exit(3)"
    with pytest.raises(ProgramFailed, match="ended with 3"):
        run([sys.executable, "-c", code], log=tmp_path / "log")
    with marked() as mark:
        process = subprocess.Popen(["sleep", "300"], start_new_session=True, env=os.environ)
    process.wait(5)
    assert stop_marked(mark) == 0
    with pytest.raises(ProgramFailed, match=r"longer than 0\.6 s"):
        run(["sleep", "300"], log=tmp_path / "log", timeout_s=0.6)


def test_the_quickstart_checks_the_machine_before_anything_starts(tmp_path):
    env = os.environ | {"PATH": "/nonexistent"}
    code = (
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        f"from deepeyes.quickstart.pipeline import main; main(['--run', {str(tmp_path / 'r')!r}])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "no Redis server is installed" in result.stdout.replace("\n", " ")
    assert not (tmp_path / "r/stages").exists()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("<code>\n```py\n1\n```\n</code>", "<code> without a ```python block"),
        ("<code>\n```Python\n1\n```\n</code>", "<code> without a ```python block"),
        ("<code>\n```\n1\n```\n</code>", "<code> without a ```python block"),
        ("<code>1</code>", "<code> without a ```python block"),
        ("<code>\n```python\n1</code>", "<code> with a ```python block that is not closed"),
        ("Red.", "neither an answer, nor code, nor a tool call"),
    ],
)
def test_a_conversation_says_why_a_reply_ended_it_without_an_answer(reply, why):
    turn = Turn(reply=Reply(text=reply, finish="stop"), action=parse_action(reply))
    console = Console(file=io.StringIO(), width=200)
    TerminalView(console)(EpisodeEnded(episode=Episode(opening=(), turns=[turn], end=StopReason.NO_ACTION)))
    assert f"(no answer: the last reply holds {why})" in console.file.getvalue()


def test_the_version_is_told(capsys):
    code, out = call(capsys, "--version")
    assert (code, out) == (0, f"deepeyes {importlib.metadata.version('deepeyes')}\n")


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viewer.__main__", None)
    code, _ = call(capsys, "view", "runs")
    assert code == "deepeyes view: the package viewer is not installed: pip install 'deepeyes[view]'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "query", "x"), "deepeyes search: path: is not given (--index FILE, which `deepeyes search index` makes)"),
        (("search", "query", "x", "--provider", "searxng"), "base_url"),
        (("search", "query", "x", "--provider", "nobody"), "nobody"),
        (("search", "query", "x", "--index", "nothere", "--set", "mode=reply"), "mode"),
    ],
)
def test_a_wrong_setting_of_a_search_is_one_line(capsys, arguments, message):
    code, _ = call(capsys, *arguments)
    assert message in code
    assert "\n" not in code
    assert "pydantic" not in code


def test_rl_wants_one_recipe_and_takes_it_as_its_first_word(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["rl", "agent.max_turns=3"])
    assert ended.value.code == 2
    assert "deepeyes rl: error: name a recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["rl", "tiny_cpu", "oops"])
    assert ended.value.code == 2
    assert "one recipe at a time, not tiny_cpu and oops; a setting is key=value" in capsys.readouterr().err


_AWAY = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("frobnicate", 2, "invalid choice: 'frobnicate'"),
        ("eval", 2, "deepeyes eval: error: the following arguments are required: --out; `deepeyes eval --help`"),
        ("eval --out r --stage score", 2, "r is no run"),
        ("eval --out r --benchmark nope --data x --model m", 2, "no benchmark 'nope'; there are: chartqa"),
        ("eval --out r --benchmark vstar --data x --model m", 2, "no file x; data/README.md says where to get it"),
        ("eval --out r --max-episodes 0", 2, "'0' cannot be; expected a whole number, at least 1"),
        (f"chat q --base-url {_AWAY}", 4, "is the server up?"),
        ("chat q --image x.png", 2, "x.png: No such file or directory"),
        ("chat q --image bad.json", 2, "bad.json cannot be used: 1 bytes are no image"),
        ("chat q --max-turns 0", 2, "max_turns: Input should be greater than or equal to 1, not 0"),
        ("chat q --settings bad.json", 2, "bad.json"),
        ("view .", 2, "no episodes.jsonl in . or below it"),
        ("view . --port abc", 2, "invalid int value: 'abc'"),
        ("view . --out F.html", 2, "no episodes.jsonl in . or below it"),
        ("search index x", 2, "nothing to index at x"),
        ("search query q --index x --set mode=reply", 2, "mode: Input should be 'live', 'record', 'replay' or 'off', not 'reply'"),
        ("search query q --set foo", 2, "'foo' is no key=value"),
        ("search stats x", 2, "no recording at x; make one with mode: record"),
        ("sandbox run x.py", 2, "x.py: No such file or directory"),
        ("sandbox run bad.png", 2, "bad.png is no UTF-8 text"),
        ("sandbox run empty.py --url http://127.0.0.1:9", 4, "cannot connect"),
        ("sandbox serve --port 99999", 2, "port is 99999; expected 0 to 65535"),
        ("sandbox serve --max-sessions 0", 2, "max_sessions is 0; expected at least 1"),
        ("sandbox serve --config bad.json", 2, "bad.json"),
        (f"judge --gold a --answer b --prompt nope --base-url {_AWAY}", 2, "no judge prompt 'nope'; there are: consistency"),
        (f"judge doctor --base-url {_AWAY}", 4, "start one with `bash judge/serve.sh`"),
        ("judge doctor --base-url nourl", 2, "'nourl' is no address of a judge; expected such as"),
        ("judge agreement bad.json", 2, "bad.json:1 is no JSON object"),
        ("plan", 2, "name a recipe, such as qwen2_5_vl_7b"),
        ("plan nothere", 2, "no recipe 'nothere'; there are"),
        ("plan qwen2_5_vl_7b agent.max_turn=3", 2, "agent.max_turn: there is no such setting; there are: "),
        ("plan qwen2_5_vl_7b --gpus 0", 2, "expected 1 to 8, or a multiple of 8"),
        ("sft nothere --dry-run", 2, "no recipe 'nothere'; there are"),
        ("sft tiny_cpu --recipe qwen2_5_vl_7b", 2, "one recipe at a time"),
        ("rl nothere --dry-run", 2, "no recipe 'nothere'; there are"),
        ("compare a b", 2, "a/run.json is missing; a run has run.json"),
        ("leaderboard x", 2, "no scored run in x"),
        ("rejudge x", 2, "--judge-base-url is missing"),
        ("contamination --benchmark vstar --data x --train y", 2, "no file x"),
        ("data stats x", 2, "x leads to no file of data"),
        ("data show bad.json 7", 2, "bad.json has no row 7"),
        ("data sample bad.json -n 0 --out s.html", 2, "'0' cannot be"),
        ("data fetch nope", 2, "no address for nope; there are vstar"),
        ("data prepare rl x --out s", 2, "x leads to no file of data"),
        ("data make count d --rows -1", 2, "rl_train is -1"),
        ("export x --out m", 2, "no complete checkpoint in x/checkpoints"),
        ("export x --to vlmevalkit --out m", 2, "x/run.json is missing"),
        ("curate run x.yaml", 2, "there is no file x.yaml; curation/README.md has one"),
        ("curate run bad.json", 2, "bad.json"),
        ("completion tcsh", 2, "choose from 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_users_mistake_is_one_line_with_the_right_exit_code(capsys, monkeypatch, tmp_path, line, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.png").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.py").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    told_at_last = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert ended.value.code == code
    assert said in told_at_last
    assert told_at_last.startswith("deepeyes")
    assert "pydantic" not in told_at_last
    assert sorted(tmp_path.iterdir()) == before
