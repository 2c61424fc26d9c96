"""What the viewer says of a whole run: words, reasons, curves, groups, and the runs of a folder."""

import json
import threading
import time
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from agent.episode import Episode, Outage, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, ToolCall
from agent.records import Rollout, RolloutFacts, to_line
from agent.trajectory import forget_after
from viewer import runs as runs_module
from viewer import words as words_module
from viewer.advantages import AdvantageRule, advantage_rule, advantages
from viewer.app import make_app
from viewer.curves import curves
from viewer.failures import clusters, reason_of
from viewer.groups import group_page, whole_group
from viewer.index import EpisodeIndex, find_runs
from viewer.words import Words, snippet

EVIL = "<script>document.title='owned'</script>"


def rollout(number, *, text="我把红色方块裁下来看", tool="python", error="", failure="", end=StopReason.ANSWERED, **facts):
    reply = Reply(text=f"<think>{text}</think>", finish="stop", num_tokens=5)
    turns = [Turn(reply=reply, action=ToolCall(tool, {}), observation=Message("user", f"seen_{number}"), tool_error=error)]
    turns.append(Turn(reply=Reply(text="<answer>Café</answer>", finish="stop", num_tokens=2), action=FinalAnswer("Café")))
    end = Outage(reason=failure) if failure else end
    opening = (Message("system", "sys"), Message("user", f"question {number}"))
    episode = Episode(opening=opening, turns=[] if failure else turns, end=end, answer="Café", episode_id=f"e{number}")
    if "step" not in facts:
        facts["step"] = number // 4
    return Rollout(episode, RolloutFacts(**({"item_id": f"i{number}"} | facts)))


def write(directory, rollouts):
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "episodes.jsonl").open("ab") as file:
        file.writelines(map(to_line, rollouts))


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run", (rollout(number) for number in range(12)))
    return tmp_path / "run"


def read(index):
    words = Words(index)
    words.follow(wait_s=30)
    return words


def found(index, query):
    return index.page({"find": query}).total


# ---- words ----


@pytest.mark.parametrize(
    ("query", "episodes"),
    [
        ("红色方块", 12), ("色方", 12), ("蓝色", 0), ("SEEN_7", 1), ("cafe", 12), ('"question 7"', 1), ("question 裁", 12), ("7 question", 1),
        ('"7 question"', 0), ("NOT question", 0), ("question OR zzz", 0), ('que"stion*', 0), ("sys", 0), ("question ^ ( { : -", 12),
    ],
)  # fmt: skip
def test_all_words_of_a_query_are_in_what_is_found_and_none_is_an_operator(run, query, episodes):
    index = EpisodeIndex(run)
    read(index)
    assert found(index, query) == episodes


def test_a_query_without_a_word_is_said_to_be_none(run):
    with TestClient(make_app([run]), base_url="http://localhost") as asked:
        answer = asked.get("/api/runs/run/search", params={"find": '" * "'})
    assert (answer.status_code, answer.json()["detail"]) == (400, "there is no word in '\" * \"'; write some letters or digits")


def test_words_grow_with_the_run_and_those_of_forgotten_steps_are_gone(run):
    index = EpisodeIndex(run)
    words = read(index)
    write(run, [rollout(12)])
    index.refresh()
    assert (words.read(), found(index, "seen_12")) == (12, 0)
    words.follow(wait_s=30)
    assert (words.read(), found(index, "seen_12")) == (13, 1)
    assert forget_after(run, 1) == 5
    write(run, [rollout(99, step=2)])
    index.refresh()
    assert (words.read(), found(index, "seen_9")) == (0, 0), "the numbers of episodes are others now"
    words.follow(wait_s=30)
    assert (words.read(), found(index, "seen_9"), found(index, "seen_99")) == (9, 0, 1)


def test_a_reader_that_is_ended_goes_on_where_it_was_and_two_do_not_count_twice(run, monkeypatch):
    monkeypatch.setattr(words_module, "_BATCH", 5)
    index = EpisodeIndex(run)
    words = Words(index)
    asked, go_on = index.rollout, threading.Event()
    monkeypatch.setattr(index, "rollout", lambda number: asked(number) if number < 8 or go_on.wait(60) else None)
    words.follow()
    until = time.monotonic() + 30
    while not words.read() and time.monotonic() < until:
        time.sleep(0.01)
    assert words.read() == 5, "a batch is there whole or not at all"
    other = EpisodeIndex(run)
    read(other)
    go_on.set()
    words.follow(wait_s=30)
    assert (words.read(), found(index, "question"), found(other, "seen_6")) == (12, 12, 1)


def test_a_snippet_shows_where_the_words_stand(run):
    one = EpisodeIndex(run).rollout(8)
    assert snippet(one, "红色方块 question") == words_module.Snippet("<think>我把", "红色方块", "裁下来看</think>", 1)
    assert (snippet(one, "question 7").found, snippet(one, "question 7").turn) == ("question", None)
    assert snippet(one, "cafe") is None
    assert snippet(one, "café").found == "Café"


def test_a_line_of_200_megabytes_and_scripts_in_every_field_stop_nothing(tmp_path):
    evil = rollout(0, text=EVIL, tool=EVIL, error=EVIL, item_id=EVIL, source=EVIL, category=EVIL, group=EVIL, gold=EVIL)
    write(tmp_path, [evil, replace(evil, facts=replace(evil.facts, sample=1)), rollout(1, failure=EVIL)])
    with (tmp_path / "episodes.jsonl").open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + (200 << 20))
        file.seek(0, 2)
        file.write(b"\n" + to_line(rollout(2)))
    with TestClient(make_app([tmp_path]), base_url="http://localhost") as asked:
        (listed,) = asked.get("/api/runs").json()
        assert (listed["episodes"], listed["unreadable"]) == (4, 1)
        base = f"/api/runs/{listed['key']}"
        assert asked.get(f"{base}/search?find=script").json()["total"] == 2
        assert [one["kind"] for one in asked.get(f"{base}/failures").json()] == ["tool", "outage"]
        assert asked.get(f"{base}/curves?split=tool").json()["curves"]["curves"][0]["name"] == EVIL
        assert asked.get(f"{base}/groups").json()["rows"][0]["group"] == EVIL
        assert len(asked.get(f"{base}/group", params={"group": EVIL, "step": "0"}).json()["members"]) == 2


# ---- reasons ----


def test_failures_of_one_reason_are_one_cluster_with_a_link_to_its_episodes(tmp_path):
    texts = [f"sandbox: http://10.0.0.{n}:8000 answered HTTP 503 {n} times for 'x{n}' in /tmp/a{n}/b" for n in range(3)]
    write(tmp_path, [rollout(n, failure=text) for n, text in enumerate(texts)])
    write(tmp_path, [rollout(3, error="NameError"), rollout(4, error="NameError"), rollout(5, end=StopReason.MAX_TURNS)])
    index = EpisodeIndex(tmp_path)
    read(index)
    assert [(one.kind, one.reason, one.episodes, one.example) for one in clusters(index, {})] == [
        ("outage", "sandbox: URL answered HTTP 503 N times for '…' in PATH", 3, "e2"),
        ("tool", "python: NameError", 2, "e4"),
        ("end", "max_turns", 1, "e5"),
    ]
    assert index.page({"reason": "tool:python: NameError", "step": "1"}).total == 1
    assert [one.kind for one in clusters(index, {"step": "0"})] == ["outage", "tool"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n judge at http://h:1/v1 is away\nmore", "judge at URL is away"), ("session 3f2504e0-4f89-11d3 lost", "session ID lost"),
        ("waited 12.5 s for \"a b\"", "waited N s for '…'"), ("HTTP 429", "HTTP 429"), ("x" * 999, "x" * 160 + "…"), ("", ""),
    ],
)  # fmt: skip
def test_a_reason_is_what_failures_have_in_common(text, reason):
    assert reason_of(text) == reason


# ---- curves ----


def test_curves_are_means_of_each_step_for_all_or_for_each_source_and_tool(tmp_path):
    write(tmp_path, [rollout(n, source=("a", "b")[n % 2], score=n / 8, reward=float(n % 2), step=n // 4) for n in range(8)])
    write(tmp_path, [rollout(8, source="a", step=1, failure="away"), rollout(9, source="b", step=None, tool="search")])
    write(tmp_path, [rollout(10, source="b", step=1, tool="search", end=StopReason.LENGTH, validation=True)])
    index = EpisodeIndex(tmp_path)
    (line,) = (every := curves(index, {"validation": "0"})).curves
    assert (every.steps, every.unnumbered, line.values["episodes"]) == ([0, 1], 1, [4, 5])
    assert line.values["accuracy"] == [pytest.approx(1.5 / 8), pytest.approx(5.5 / 8)]
    assert (line.values["failed"], line.values["tool rate"]) == ([0, 0.2], [1, 1])
    by_source = {one.name: one.values["reward"] for one in curves(index, {"validation": "0"}, split="source").curves}
    assert by_source == {"a": [0, 0], "b": [1, 1]}
    by_tool = {one.name: one.values for one in curves(index, {}, split="tool").curves}
    assert (by_tool["search"]["episodes"], by_tool["search"]["truncated"]) == ([None, 1], [None, 1])
    with pytest.raises(ValueError, match="no split by 'x'; there are: source, category, tool"):
        curves(index, {}, split="x")


# ---- groups ----


def _group(name, rewards, **facts):
    return [
        rollout(f"{name}{n}", step=3, group=name, item_id=f"item {name}", sample=n, reward=reward, score=reward,
                failure="" if reward is not None else "away", **facts)
        for n, reward in enumerate(rewards)
    ]  # fmt: skip


@pytest.fixture
def grouped(tmp_path):
    run = tmp_path / "run/rollouts"
    write(run, [*_group("a", [1.0, 0.2, 0.2, None]), *_group("b", [0.8] * 4), *_group("c", [1.0, 0.5], validation=True), rollout(0, item_id="")])
    (tmp_path / "run/recipe.resolved.yaml").write_text("verl: {algorithm: {adv_estimator: grpo}}")
    return run


def test_groups_are_told_with_what_was_lost_and_which_of_them_teach_nothing(grouped):
    index = EpisodeIndex(grouped)
    page = group_page(index, {"validation": "0"}, sort="spread", descending=True)
    assert [(one.group, one.rollouts, one.lost, one.right, one.lowest, one.highest) for one in page.rows] == [
        ("a", 4, 1, 1, 0.2, 1.0), ("b", 4, 0, 0, 0.8, 0.8),
    ]  # fmt: skip
    assert (page.total, page.equal) == (2, 1)
    assert [one.group for one in group_page(index, {}, kind="different").rows] == ["a", "c"]
    with pytest.raises(ValueError, match="no kind of groups 'x'"):
        group_page(index, {}, kind="x")


def test_advantages_are_the_recipes_where_the_trainer_wrote_none(grouped):
    index, rule = EpisodeIndex(grouped), advantage_rule(grouped)
    whole = whole_group(index, {"step": "3", "group": "a", "validation": "0"}, rule)
    assert [one.advantage for one in whole.members] == [pytest.approx(1.1547, abs=1e-4), *[pytest.approx(-0.57735, abs=1e-4)] * 2, None]
    assert "divided by the group's deviation" in whole.rule
    assert [one.advantage for one in whole_group(index, {"step": "3", "group": "b"}, rule).members] == [0.0] * 4
    validation = whole_group(index, {"step": "3", "group": "c", "validation": "1"}, rule)
    assert ([one.advantage for one in validation.members], validation.rule) == ([None, None], "none: nothing is learned from a validation")
    with pytest.raises(LookupError, match="no group 'x' in step 3"):
        whole_group(index, {"step": "3", "group": "x"}, rule)


def test_advantages_that_the_trainer_wrote_are_shown_as_they_are(grouped):
    lines = ["{", '{"step": 2, "advantages": {"ea0": 9}}', json.dumps({"step": 3, "advantages": {"ea0": 0.5, "ea1": -0.25}})]
    (grouped.parent / "advantages.jsonl").write_text("\n".join(lines) + "\n")
    index = EpisodeIndex(grouped)
    whole = whole_group(index, {"step": "3", "group": "a"}, AdvantageRule())
    assert ([one.advantage for one in whole.members], whole.rule) == ([0.5, -0.25, None, None], "as the trainer wrote them")
    assert whole_group(index, {"step": "3", "group": "b"}, AdvantageRule()).rule == "none: the trainer did not learn from this group"


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("verl: {algorithm: {adv_estimator: gae}}", "the recipe's adv_estimator is gae, not grpo"),
        ("verl: {algorithm: {adv_estimator: grpo, use_kl_in_reward: true}}", "use_kl_in_reward"),
        ("[", "there is no recipe"), ("- 1", "there is no recipe"),
    ],
)  # fmt: skip
def test_advantages_that_cannot_be_known_are_said_to_be_so(tmp_path, recipe, problem):
    (tmp_path / "recipe.resolved.yaml").write_text(recipe)
    assert problem in advantage_rule(tmp_path).problem


def test_without_division_an_advantage_is_what_is_left_of_the_mean():
    assert advantages([1.0, None, 0.0], by_deviation=False) == [0.5, None, -0.5]
    assert advantages([None], by_deviation=True) == [None]
    assert advantages([0.3], by_deviation=True) == [0.0]


# ---- the runs of a folder, and how far each is read ----


def test_a_folder_of_runs_is_listed_each_is_opened_when_asked_for_and_new_ones_appear(tmp_path, monkeypatch):
    for name in ("a/rollouts", "b"):
        write(tmp_path / name, [rollout(0)])
    (tmp_path / "a/images").mkdir()
    with TestClient(make_app([tmp_path]), base_url="http://localhost") as asked:
        assert [set(run) for run in asked.get("/api/runs").json()] == [{"key", "title"}] * 2
        listed = {run["key"]: run for run in asked.get("/api/runs?run=a~rollouts").json()}
        assert (listed["a~rollouts"]["episodes"], "episodes" in listed["b"]) == (1, False)
        monkeypatch.setattr(runs_module, "_LOOK_EVERY_S", 0.0)
        write(tmp_path / "新的", [rollout(0, score=1.0), rollout(1, score=0.0)])
        assert [(run["title"], run["episodes"]) for run in asked.get("/api/picker").json()] == [("a/rollouts", 1), ("b", 1), ("新的", 2)]
        pair = asked.get("/api/compare?left_run=b&right_run=新的").json()
        assert (pair["total"], pair["rows"][1]["left"]) == (2, None)
        assert asked.get("/api/compare").json()["detail"].startswith("3 runs are here; choose two")
    assert find_runs(tmp_path) == [tmp_path / name for name in ("a/rollouts", "b", "新的")]


def test_a_question_of_the_page_reads_for_a_bounded_time_and_the_next_one_goes_on(run, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    index = EpisodeIndex(run, within_s=3.5)
    first = index.page({}).total
    assert 0 < first < 12
    assert index.unread_bytes > 0
    while index.unread_bytes:
        index.refresh(3.5)
    assert index.page({}).total == 12
