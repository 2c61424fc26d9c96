"""Each alarm is raised by a history with its fault, by that alone, and by no healthy training that was recorded."""

import json
from pathlib import Path

import pytest

from reinforcement_learning.alarms import ALARMS, Watch

HEALTHY = sorted((Path(__file__).parent / "healthy_runs").glob("*.jsonl"))
STEADY = {
    "episode/tool_used/mean": 0.6, "episode/acc/mean": 0.6, "actor/entropy": 0.5, "group/zero_variance_frac": 0.3,
    "group/all_right_frac": 0.2, "training/rollout_actor_probs_pearson_corr": 0.9999, "episode/model_tokens/mean": 400.0,
    "episode/truncated_frac": 0.05, "episode/failed_frac": 0.0, "actor/perf/cpu_memory_used_gb": 100.0,
}  # fmt: skip
STEPS = 24


def history(**changing):
    """`STEADY` lines in which some metrics go from one value to another, evenly."""
    lines = []
    for step in range(STEPS):
        done = step / (STEPS - 1)
        moved = {name: begin + (end - begin) * done for name, (begin, end) in changing.items()}
        lines.append({"step": step + 1} | STEADY | moved)
    return lines


FAULTS = {
    "tool_use_gone": {"episode/tool_used/mean": (0.7, -0.05)},
    "entropy_collapse": {"actor/entropy": (0.6, 0.001)},
    "equal_groups": {"group/zero_variance_frac": (0.4, 1.0)},
    "drift": {"training/rollout_actor_probs_pearson_corr": (0.9999, 0.9)},
    "reply_flood": {"episode/model_tokens/mean": (400, 2000), "episode/truncated_frac": (0.05, 0.8)},
    "failures_rise": {"episode/failed_frac": (0.0, 0.2)},
    "memory_grows": {"actor/perf/cpu_memory_used_gb": (100.0, 160.0)},
}


def test_every_alarm_has_its_fault_here():
    assert set(FAULTS) == set(ALARMS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_its_alarm_alone_with_numbers_and_once(name):
    told = []
    watch = Watch([], told.append)
    lines = [watch.look(line) for line in history(**FAULTS[name])]
    assert {alarm for line in lines for alarm, on in line.items() if on} == {f"alarm/{name}"}
    assert lines[0][f"alarm/{name}"] == 0
    assert lines[-1][f"alarm/{name}"] == 1
    (said,) = told
    assert said.startswith(f"alarm {name}: ")
    assert any(letter.isdigit() for letter in said)


def test_what_is_learned_to_the_end_is_no_fault():
    done = history(**{
        "episode/acc/mean": (0.6, 1.0), "actor/entropy": (0.5, 0.001), "group/zero_variance_frac": (0.3, 1.0),
        "group/all_right_frac": (0.2, 1.0),
    })  # fmt: skip
    assert [check(done) for check in ALARMS.values()] == [""] * len(ALARMS)


def test_a_run_that_goes_on_does_not_tell_again_and_tells_of_what_is_new():
    lines, told = history(**FAULTS["drift"]), []
    watch = Watch(lines, told.append)
    assert watch.look(lines[-1])["alarm/drift"] == 1
    assert told == []
    for _ in range(3):
        watch.look(lines[-1] | {"episode/failed_frac": 0.5})
    assert [said.split(":")[0] for said in told] == ["alarm failures_rise"]


def test_a_long_run_is_compared_with_its_first_steps():
    told = []
    watch = Watch([], told.append)
    for number in range(400):
        watch.look(STEADY | {"episode/tool_used/mean": 0.7 if number < 5 else 0.01})
    assert [said.split(":")[0] for said in told] == ["alarm tool_use_gone"]


def test_missing_metrics_and_few_steps_raise_nothing():
    assert not any(Watch([], pytest.fail).look({}).values())
    assert not any(check(history(**FAULTS["drift"])[-5:]) for check in ALARMS.values())


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_training_raises_none(path):
    watch = Watch([], pytest.fail)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) >= 6
    assert not any(on for line in lines for on in watch.look(line).values())
