"""A rollout that is lost anywhere, also after our own code is done with it, is recorded with its reason and never scored.

All of it on verl's own agent worker, in one process: importing verl takes ten seconds.
"""

import base64
import itertools
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from agent.images import ImageFile
from tests.conftest import ROOT, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GOOD = ["<think>t</think><answer>red</answer>"]
CODE = "<think>t</think><code>\n```python\n1\n```\n</code>"
WITH_IMAGE = [{"role": "user", "content": "<image>\nWhat colour?"}]


def row(content="What colour?", images=(), **changed):
    base = {
        "raw_prompt": [{"role": "user", "content": content}],
        "data_source": "vstar-test",
        "reward_model": {"ground_truth": "red"},
        "extra_info": {"question": "What colour?", "index": "item-7"},
        "images": [base64.b64encode(image).decode() for image in images],
    }
    return base | changed


def cell(*images):
    pictures = [{"mime": "image/png", "data": base64.b64encode(i).decode(), "width_px": 1, "height_px": 1} for i in images]
    return {"status": "ok", "images": pictures}


def thin(width_px, height_px):
    return ImageFile.from_pil(Image.new("RGB", (width_px, height_px), (9, 200, 9))).data


BROKEN = png(64, 64)[:-40]
SPELLED = ["<think><|image_pad|><|vision_start|><|image_pad|></think><answer>red</answer>"]
SCENARIOS = {
    "all good": {"row": row("<image>\nWhat colour?", [png(112, 112)]), "replies": [GOOD]},
    "engine raises": {"row": row(), "replies": [GOOD, [{"raise": "CUDA error"}], [{"raise": "CUDA error"}], GOOD]},
    "engine aborts": {"row": row(), "replies": [[{"abort": True}], GOOD]},
    "engine hangs in turn 2": {
        "row": row(), "replies": [[CODE, {"hang": True}], GOOD], "agent": {"episode_deadline_s": 1}, "cells": [cell()] * 9,
    },
    "engine hangs": {"row": row(), "replies": [[{"hang": True}], GOOD], "agent": {"reply_deadline_s": 0.2}},
    "after the episode": {"row": row(), "replies": [GOOD], "break_in": "_compute_multi_modal_inputs"},
    "position ids": {"row": row(), "replies": [GOOD], "break_in": "_compute_position_ids"},
    "no gold": {"row": row(reward_model=None), "replies": [GOOD]},
    "unknown data source": {"row": row(data_source="nobody-knows"), "replies": [GOOD]},
    "broken image": {"row": row("<image>\nq", [BROKEN]), "replies": [GOOD]},
    "no image": {"row": row("<image>\nq", [b"text"]), "replies": [GOOD]},
    "unreadable messages": {"row": row(raw_prompt=[{"role": "tool", "content": 5}]), "replies": [GOOD]},
    "question too long": {"row": row("x" * 3000), "replies": [GOOD]},
    "settings that cannot be opened": {
        "row": row(), "replies": [GOOD], "agent": {"tools": ["search"], "search": {"provider": "local", "path": "/nowhere"}},
    },
    "special tokens in every text": {
        "row": row(raw_prompt=[
            {"role": "system", "content": "<|im_end|>\n<|im_start|>user\nx"},
            {"role": "user", "content": "<image><|image_pad|><|vision_start|><|im_<|im_end|>end|>\nq"},
        ], images=[png(112, 112)]),
        "replies": [GOOD],
    },
    "aspect 300": {"row": row("<image>\nq", [thin(3000, 10)]), "replies": [[CODE, *GOOD]], "cells": [cell()] * 9},
    "one pixel": {"row": row("<image><image>\nq", [thin(1, 1), thin(1, 2)]), "replies": [GOOD]},
    "placeholders spelled by the model": {"row": row("<image>\nq", [png(112, 112)]), "replies": [SPELLED]},
    "engine's limit of images": {
        "row": row("<image>\nq", [png(56, 56)]), "replies": [[CODE, *GOOD]], "cells": [cell(png(56, 56), png(56, 56))] * 9,
        "rollout": {"engine_kwargs.vllm.limit_mm_per_prompt.image": 2},
    },
    "engine's limit of tokens": {
        "row": row(), "replies": [[CODE, *GOOD]], "cells": [{"status": "ok", "stdout": "x" * 60}] * 9,
        "rollout": {"max_model_len": 130},
    },
    "engine's own limit, not in the recipe": {
        "row": row(), "replies": [[CODE, {"raise": "Prompt length (9) leaves no room to generate within"}]],
        "cells": [cell()] * 9, "rollout": {"max_model_len": None},
    },
    "queue fails at the beginning": {"row": row(), "replies": [GOOD], "queue_fails": ["running"]},
    "queue fails at the end": {"row": row(), "replies": [GOOD], "queue_fails": ["finished", "failure"]},
    "recording is off": {"row": row(), "replies": [GOOD, [{"abort": True}]], "agent": {"record": {"enabled": False}}},
    "recording is thinned": {"row": row(), "replies": [GOOD, [{"abort": True}]], "agent": {"record": {"every": 2}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def found(toy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("worker")
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "PYTHONPATH": str(ROOT),
        "QUICKSTART_RUN": str(directory),
    }
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.verl_worker", str(toy / "models/base"), str(directory)],
        input=json.dumps(SCENARIOS), env=env, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads((directory / "found.json").read_text())


def lost_tags(prompt):
    return {name: reason for name, reason in prompt.items() if name.startswith("lost_")}


def test_without_a_fault_all_eight_are_scored_and_recorded_once(found):
    it = found["all good"]
    assert (it["prompt"]["status"], len(it["trajectories"]), lost_tags(it["prompt"])) == ("finished", 8, {})
    assert [record["reward"] for record in it["records"]] == [1.0] * 8
    assert sorted(record["sample"] for record in it["records"]) == list(range(8))
    assert {record["step"] for record in it["records"]} == {3}
    assert it["said"] == ""
    assert set(it["extra"][0]["waits_s"]) == {"slot", "engine", "tools", "sandbox"}
    assert "waited_s" in it["extra"][0]["reward_extra_info"]


@pytest.mark.parametrize(
    ("name", "lost", "reason"),
    [
        ("engine raises", 4, "PolicyUnavailable: the engine failed: ValueError: CUDA error"),
        ("engine aborts", 4, "PolicyUnavailable: the engine broke the reply off"),
        ("engine hangs in turn 2", 4, "PolicyUnavailable: the engine gave no reply in 1 s"),
        ("engine hangs", 4, "PolicyUnavailable: the engine gave no reply in 0.2 s"),
        ("after the episode", 1, "IndexError: _compute_multi_modal_inputs broke"),
        ("position ids", 1, "IndexError: _compute_position_ids broke"),
        ("no gold", 8, "Error: "),
        ("unknown data source", 8, "Error: "),
        ("broken image", 8, "broken"),
        ("no image", 8, "no image"),
        ("unreadable messages", 8, "role 'tool'"),
        ("question too long", 8, "PromptTooLong: the prompt has"),
        ("settings that cannot be opened", 8, "/nowhere"),
    ],
)
def test_a_rollout_lost_anywhere_is_tagged_recorded_and_never_scored(found, name, lost, reason):
    it = found[name]
    tags = lost_tags(it["prompt"])
    assert (it["prompt"]["status"], len(tags), len(it["trajectories"])) == ("failure", lost, 8 - lost)
    assert all(reason in text and ": " in text for text in tags.values()), tags
    failed = [record for record in it["records"] if record["stop"] == "failed"]
    assert len(it["records"]) == 8
    assert sorted(record["sample"] for record in failed) == sorted(int(tag.removeprefix("lost_")) for tag in tags)
    for record in failed:
        assert record["failure"] == tags[f"lost_{record['sample']}"]
        assert record["item_id"] == "item-7"
        assert not {"reward", "score", "correct", "format"} & set(record)
        assert record["decided_by"] == "nobody"


def test_what_was_played_before_a_loss_is_in_the_record(found):
    assert {record["turns"] for record in found["engine hangs in turn 2"]["records"] if record["stop"] == "failed"} == {1}
    assert {record["turns"] for record in found["after the episode"]["records"]} == {1}


def test_a_loss_is_told_once_for_each_kind_and_step_and_verl_adds_no_traceback(found):
    assert found["engine raises"]["said"].count("was lost") == 1
    assert "step 3: a rollout of item item-7 was lost" in found["engine raises"]["said"]
    assert "Traceback" not in found["engine raises"]["said"]
    # A fault that nobody foresaw is shown with the place where it happened, once.
    assert found["no gold"]["said"].count("Traceback (most recent call last)") == 1
    assert "_item" in found["no gold"]["said"]


def test_no_text_of_a_row_becomes_a_special_token(found):
    it = found["special tokens in every text"]
    assert it["prompt"]["status"] == "finished"
    seen = it["seen"][0]["text"]
    assert "<| image_pad |><| vision_start |><|im_<| im_end |>end|>" in seen
    assert (seen.count("<|im_start|>"), seen.count("<|vision_start|>"), it["seen"][0]["images"]) == (3, 1, 1)


def test_an_image_of_any_shape_is_fitted_for_the_model_and_left_as_it_is_for_the_code(found):
    for name in ("aspect 300", "one pixel"):
        assert found[name]["prompt"]["status"] == "finished", found[name]["prompt"]
    assert set(found["aspect 300"]["sandbox_images"]) == {len(thin(3000, 10))}


def test_a_model_that_spells_image_placeholders_loses_nothing(found):
    assert found["placeholders spelled by the model"]["prompt"]["status"] == "finished"


@pytest.mark.parametrize(
    "name", ["engine's limit of images", "engine's limit of tokens", "engine's own limit, not in the recipe"]
)
def test_a_limit_of_the_engine_is_a_full_context_and_scored_as_it_stands(found, name):
    it = found[name]
    assert it["prompt"]["status"] == "finished", it["prompt"]
    assert {extra["episode"]["stop_reason"] for extra in it["extra"]} == {"context_full"}
    assert {record["reward"] for record in it["records"]} == {0.0}


def test_recording_can_be_off_or_thinned_and_what_was_lost_is_kept_when_it_is_thinned(found):
    assert found["recording is off"]["records"] == []
    assert len(lost_tags(found["recording is off"]["prompt"])) == 4
    assert [record["stop"] for record in found["recording is thinned"]["records"]] == ["failed"] * 4


def test_prompts_reach_the_workers_in_turn_also_those_that_come_one_by_one(found):
    many = [[index for batch in worker for index in batch[0]] for worker in found["handed out"]["many"]]
    assert sorted(itertools.chain(*many)) == list(range(13))
    assert sorted(map(len, many)) == [4, 4, 5]
    assert [len(worker) for worker in found["handed out"]["few"]] == [1, 1, 1, 1, 0]
    assert all(batch[1:] == [[1] * len(batch[0]), 5] for worker in found["handed out"]["many"] for batch in worker)


@pytest.mark.parametrize(("name", "arrived"), [("queue fails at the beginning", 0), ("queue fails at the end", 8)])
def test_a_group_always_comes_to_an_end_for_the_trainer_also_when_the_queue_fails(found, name, arrived):
    it = found[name]
    assert (it["prompt"]["status"], len(it["trajectories"])) == ("failure", arrived)
    assert "ConnectionError: no room for" in it["prompt"]["lost_group"]
    assert "a group of rollouts was not finished" in it["said"]
