"""What a step's metrics say of its episodes."""

import dataclasses
import json

import pytest

from agent.episode import StopReason, Turn
from agent.policy import Reply
from agent.protocol import Malformed, ToolCall
from reinforcement_learning.metrics import EpisodeNumbers, episode_numbers, error_name, spread_choice, step_metrics
from tests.recorded_runs import CROP, episode

TOOLS = ("python", "search")


def numbers(played, *, acc=1.0, score=None, source="tiles", lookups=(), observation_tokens=7, judge_s=0.5):
    reward = {
        "acc": acc, "score": acc if score is None else score, "tool_calls": float(played.calls()),
        "tool_used": float(played.calls() > 0),
    }  # fmt: skip
    return episode_numbers(
        played, source=source, tools=TOOLS, reward=reward, observation_tokens=observation_tokens, judge_s=judge_s,
        lookups=dict(lookups), image_names=["a" * 64],
    )  # fmt: skip


def call(name, *, error="", tool_s=0.0, program_s=0.0, **arguments):
    action = ToolCall(name, arguments)
    return Turn(reply=Reply(text="", finish="stop", num_tokens=3), action=action, tool_error=error, tool_s=tool_s, program_s=program_s)


def with_turns(*turns, end=StopReason.ANSWERED):
    played = episode("red")
    played.turns[:0] = turns
    played.end = end
    return played


def test_numbers_travel_as_plain_values_and_come_back_the_same():
    one = numbers(episode("red", code=CROP))
    assert EpisodeNumbers(**json.loads(json.dumps(dataclasses.asdict(one)))).calls == one.calls
    assert EpisodeNumbers(**dataclasses.asdict(one)) == one


def test_calls_are_counted_by_tool_kind_of_code_and_class_of_error():
    played = with_turns(
        call("python", code=CROP),
        call("python", code="1 / 0", error="ZeroDivisionError"),
        call("python", code="raise Mine", error="MineError"),
        call("search", query="q"),
        call("make_coffee", error="unknown tool"),
        Turn(
            reply=Reply(text="", finish="stop", num_tokens=3),
            action=Malformed("no JSON", observation="no JSON"),
        ),
    )  # fmt: skip
    found = step_metrics([("g", numbers(played)), ("g", numbers(episode("blue")))])
    assert found["tool/python/calls/mean"] == 1.5
    assert found["tool/search/calls/mean"] == found["tool/unknown/calls/mean"] == 0.5
    assert found["tool/python/error_frac"] == pytest.approx(2 / 3)
    assert found["tool/search/error_frac"] == 0.0
    assert found["tool/unknown/error_frac"] == 1.0
    assert {name: value for name, value in found.items() if name.startswith("code/")} == {
        "code/crop/calls/mean": 0.5, "code/mark/calls/mean": 0.0, "code/numerical/calls/mean": 0.5, "code/other/calls/mean": 0.5,
    }  # fmt: skip
    assert {name: value for name, value in found.items() if name.startswith("tool_error/")} == {
        f"tool_error/{name}/calls/mean": 0.5 for name in ("ZeroDivisionError", "other", "unknown_tool", "malformed")
    }


def test_a_program_cannot_flood_the_trackers_with_names():
    assert [error_name(error) for error in ("ValueError", "XyzError", "too many calls", "KernelDied", "print")] == [
        "ValueError", "other", "too_many_calls", "KernelDied", "other",
    ]  # fmt: skip


def test_groups_that_teach_nothing_are_told_apart():
    def group(name, *rewards):
        return [(name, numbers(episode("red"), acc=float(acc), score=score)) for acc, score in rewards]

    found = step_metrics([
        *group("right", (1, 1.0), (1, 1.0)),
        *group("right, at another cost", (1, 1.0), (1, 0.9)),
        *group("wrong", (0, 0.2), (0, 0.2 + 1e-9)),
        *group("mixed", (1, 1.0), (0, 0.2)),
    ])  # fmt: skip
    assert found["group/count"] == 4
    assert found["group/zero_variance_frac"] == 0.5
    assert found["group/all_right_frac"] == 0.5
    assert found["group/all_wrong_frac"] == 0.25


def test_each_source_has_its_own_accuracy_reward_and_tool_use():
    found = step_metrics(
        [
            ("a", numbers(episode("red", code=CROP), acc=1.0, score=0.9, source="perception")),
            ("b", numbers(episode("red"), acc=0.0, score=0.2, source="perception")),
            ("c", numbers(episode("red"), acc=1.0, source="my data/1")),
        ]
    )
    assert found["source/perception/acc/mean"] == 0.5
    assert found["source/perception/score/mean"] == pytest.approx(0.55)
    assert found["source/perception/tool_used/mean"] == found["source/perception/tool_calls/mean"] == 0.5
    assert (found["source/perception/count"], found["source/my_data_1/count"]) == (2, 1)


def test_ends_lengths_and_waits():
    cut = with_turns(call("python", code=CROP, tool_s=3.0, program_s=1.0), end=StopReason.MAX_TURNS)
    asked = with_turns(call("search", query="q", tool_s=0.25))
    found = step_metrics([("a", numbers(cut)), ("a", numbers(asked, judge_s=1.5, observation_tokens=9))])
    assert found["episode/truncated_frac"] == found["episode/stop_max_turns_frac"] == 0.5
    assert {f"episode/stop_{reason}_frac" for reason in StopReason} <= set(found)
    assert found["episode/turns/mean"] == found["episode/turns/max"] == 2
    assert found["episode/model_tokens/mean"] == 8
    assert found["episode/observation_tokens/mean"] == 8
    assert (found["latency/sandbox_s/mean"], found["latency/program_s/max"]) == (2.0, 1.0)
    assert found["latency/search_s/max"] == 0.25
    assert (found["latency/judge_s/mean"], found["latency/judge_s/max"]) == (1.0, 1.5)


def test_cache_hits_are_shares_of_all_that_was_asked_and_none_where_nothing_was():
    rows = [("a", numbers(episode("red"), lookups=some)) for some in ({"judge": 3, "judge_hits": 1}, {"judge": 1}, {"prefix": 0})]
    found = step_metrics(rows)
    assert found["cache/judge_hit_frac"] == 0.25
    assert [name for name in found if name.startswith("cache/")] == ["cache/judge_hit_frac"]


def test_an_outage_that_is_scored_has_no_turn_perhaps():
    found = step_metrics([("a", numbers(episode("", failure="SandboxAway: gone"), acc=0.0))])
    assert found["episode/stop_failed_frac"] == 1.0


def test_samples_are_of_different_groups_first():
    rows = [(group, numbers(episode("red"))) for group in "aaaabbbbcccc"]
    of = {one.episode_id: group for group, one in rows}
    chosen = [of[one.episode_id] for one in spread_choice(rows, number=4, seed=3)]
    assert set(chosen[:3]) == {"a", "b", "c"}
    assert len(chosen) == 4
    assert len(spread_choice(rows[:2], number=4, seed=3)) == 2
