import functools
import importlib.util
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from agent.recipes import RecipeError, shared_value
from agent.setup import primer_of
from reinforcement_learning.checks import check_recipe
from reinforcement_learning.recipe import RECIPES, load_recipe
from reinforcement_learning.train import main

NAMES = sorted(path.stem for path in RECIPES.glob("[!_]*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads(name):
    assert load_recipe(name).verl["algorithm"]["adv_estimator"] == "grpo"


def test_published_values_are_in_the_recipes():
    paper, script = load_recipe("qwen2_5_vl_7b"), load_recipe("qwen2_5_vl_7b_script")
    for recipe in (paper, script):
        rollout, actor = recipe.verl["actor_rollout_ref"]["rollout"], recipe.verl["actor_rollout_ref"]["actor"]
        assert (recipe.verl["data"]["train_batch_size"], rollout["n"], actor["ppo_mini_batch_size"]) == (256, 16, 32)
        assert (actor["optim"]["lr"], rollout["temperature"], actor["use_kl_loss"]) == (1e-6, 1.0, False)
        assert (recipe.agent.max_turns, recipe.agent.max_reply_tokens, primer_of(recipe.agent)) == (9, 8192, "<think>")
        assert (recipe.verl["trainer"]["test_freq"], recipe.verl["data"]["filter_overlong_prompts"]) == (4, True)
        assert recipe.run.val_files[0].endswith("vstar_test.parquet")
    clips = [r.verl["actor_rollout_ref"]["actor"] for r in (paper, script)]
    assert [(c["clip_ratio_low"], c["clip_ratio_high"]) for c in clips] == [(0.2, 0.3), (0.2, 0.2)]


@pytest.mark.parametrize("name", ["qwen3_vl_8b", "qwen3_vl_30b_a3b"])
def test_another_family_is_trained_as_the_paper_trains_its_own(name):
    paper, other = load_recipe("qwen2_5_vl_7b"), load_recipe(name)
    assert other.agent == paper.agent.model_copy(update={"max_in_flight": other.agent.max_in_flight})
    assert other.verl["data"] == paper.verl["data"]
    actors = [recipe.verl["actor_rollout_ref"]["actor"] for recipe in (paper, other)]
    for key in ("optim", "loss_agg_mode", "ppo_mini_batch_size", "clip_ratio_low", "clip_ratio_high", "use_kl_loss"):
        assert actors[0][key] == actors[1][key]
    assert {recipe.verl["actor_rollout_ref"]["rollout"]["n"] for recipe in (paper, other)} == {16}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tiny_cpu"])
def test_every_gpu_recipe_packs_by_tokens_keeps_two_checkpoints_and_caps_images(name):
    recipe = load_recipe(name)
    rollout, actor = recipe.verl["actor_rollout_ref"]["rollout"], recipe.verl["actor_rollout_ref"]["actor"]
    assert actor["use_dynamic_bsz"] is rollout["log_prob_use_dynamic_bsz"] is True
    assert recipe.verl["actor_rollout_ref"]["model"]["use_fused_kernels"] is True
    assert recipe.verl["trainer"]["max_actor_ckpt_to_keep"] == 2
    assert recipe.agent.image_max_pixels == shared_value("image_max_pixels")
    replicas = (
        recipe.verl["trainer"]["nnodes"] * recipe.verl["trainer"]["n_gpus_per_node"] // rollout["tensor_model_parallel_size"]
    )
    assert recipe.agent.max_in_flight["policy"] * rollout["agent"]["num_workers"] >= 128 * replicas


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@functools.cache
def verl_source():
    """What verl 0.9.1 looks up, as text: back-ends and trainers that no recipe uses are left out, and lines that only store a
    value in `self` under its own name."""
    root = Path(importlib.util.find_spec("verl").submodule_search_locations[0])
    unused = re.compile(
        r"megatron|veomni|torchtitan|mindspeed|automodel|sglang|trtllm|sft|fully_async|separation|npu|ray_trainer"
    )
    files = (path for path in sorted(root.rglob("*.py")) if not unused.search(str(path.relative_to(root))))
    return [STORED.sub("", path.read_text(encoding="utf-8")) for path in files]


STORED = re.compile(r"""self\.(\w+) = config\.get\("\1".*""")
PASSED_ON_WHOLE = ("ray_kwargs.ray_init.", "engine_kwargs.vllm.", "override_config.", "SimpleStorage.", "custom_cls.")
"""Blocks that verl hands to Ray, vLLM, transformers and TransferQueue, or to our own class, as they are."""
READ_UNDER_ANOTHER_NAME = {
    "trainer.v1.episode_sync": "by the name of the trainer's mode",
    "data.max_prompt_length": "rollout.prompt_length",
    "data.max_response_length": "rollout.response_length",
    "actor_rollout_ref.actor.optim.weight_decay": "given to torch's optimizer with the rest of the block",
}


def is_read(key):
    name = key.rpartition(".")[2]
    if key in READ_UNDER_ANOTHER_NAME or any(part in key for part in PASSED_ON_WHOLE):
        return True
    looked_up = re.compile(rf"""\.{name}\b(?!\s*=[^=])|["']{name}["']|\.{name}\(""")
    return any(name in text and looked_up.search(text) for text in verl_source())


needs_verl = pytest.mark.skipif(importlib.util.find_spec("verl") is None, reason="needs verl: bash scripts/setup.sh")


@needs_verl
@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_recipe_is_one_that_verl_reads(name):
    recipe = load_recipe(name)
    assert not [key for key in (*leaves(recipe.verl), *recipe.verl_extra) if not is_read(key)]


@needs_verl
@pytest.mark.parametrize("key", ["multi_stage_wake_up", "freeze_vision_tower", "return_raw_chat", "truncation"])
def test_a_key_that_verl_only_stores_or_lists_would_be_found(key):
    assert not is_read(f"actor_rollout_ref.{key}")


@pytest.mark.parametrize("name", NAMES)
def test_no_recipe_sets_what_its_own_switches_leave_unread(name):
    verl = load_recipe(name).verl
    actor = verl["actor_rollout_ref"]["actor"]
    assert "ref" not in verl["actor_rollout_ref"], "there is no reference policy without a KL term"
    assert actor["use_kl_loss"] is False
    assert "kl_loss_coef" not in actor
    assert "ppo_micro_batch_size_per_gpu" not in actor, "batches are packed by tokens"
    assert "log_prob_micro_batch_size_per_gpu" not in verl["actor_rollout_ref"]["rollout"]


def test_the_filter_of_groups_is_off_and_one_overlay_away():
    assert "filter_groups" not in load_recipe("qwen2_5_vl_7b").verl["algorithm"]
    recipe = load_recipe("qwen2_5_vl_7b", overlays=["_filter_groups"])
    assert recipe.verl["algorithm"]["filter_groups"] == {"enable": True, "metric": "acc"}
    assert recipe.verl["algorithm"]["adv_estimator"] == "grpo"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent.max_turn=3", r"agent\.max_turn: .*there are: .*max_turns"),
        ("agent.max_turns=0", "agent.max_turns"),
        ("oops", "is no key=value"),
        ("run.modle=x", "run.modle: .*there are: .*model"),
    ],
)
def test_a_wrong_key_is_an_error_that_lists_the_right_ones(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny_cpu", [override])


def test_overrides_and_addresses_win_over_the_file(monkeypatch):
    monkeypatch.setenv("CODE_SANDBOX_URL", "http://a, http://b")
    monkeypatch.setenv("LLM_AS_A_JUDGE_BASE", "http://j/v1")
    recipe = load_recipe("tiny_cpu", ["agent.max_turns=4", "verl.trainer.total_training_steps=2", "verl_extra.a.b=1"])
    assert recipe.agent.sandbox_urls == ("http://a", "http://b")
    assert recipe.agent.judge.base_urls == ("http://j/v1",)
    assert recipe.agent.max_turns == 4
    assert recipe.verl["trainer"]["total_training_steps"] == 2
    assert recipe.verl_extra["a.b"] == 1


def test_overrides_are_taken_as_they_are_pasted_from_verls_commands():
    pasted = ["trainer.total_training_steps=2", "data.train_batch_size=8", "+actor_rollout_ref.model.override_config.x=1", "critic.optim.lr=1e-5"]
    recipe = load_recipe("tiny_cpu", pasted)
    assert recipe.verl["trainer"]["total_training_steps"] == 2
    assert recipe.verl["data"]["train_batch_size"] == 8
    assert recipe.verl["critic"]["optim"]["lr"] == 1e-5
    assert recipe.verl_extra["actor_rollout_ref.model.override_config.x"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: [none.yaml]", "extends none.yaml"),
        ("extends: [r.yaml]", "extends itself"),
        ("run: [", "broken YAML"),
        ("- a", "holds a list"),
        ("run: {}", "run.model: is not given"),
        ("run: {model: '${NOT_SET_ANYWHERE}'}", "environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_a_broken_recipe_is_one_clear_message(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_those_that_are():
    with pytest.raises(RecipeError, match="qwen2_5_vl_7b_script, qwen3_vl_30b_a3b, qwen3_vl_8b, tiny_cpu"):
        load_recipe("gpt")


def tiny(toy, **run) -> object:
    values = {"model": str(toy / "models/base"), "train_files": [str(toy / "data/rl_train.parquet")], **run}
    return load_recipe("tiny_cpu", [f"run.{key}={json.dumps(value)}" for key, value in values.items()])


def failing(recipe) -> dict[str, str]:
    return {check.name: check.message for check in check_recipe(recipe) if not check.ok}


def test_without_a_sandbox_only_the_sandbox_is_missing(toy, tmp_path):
    problems = failing(tiny(toy, directory=str(tmp_path)))
    assert list(problems) == ["sandbox and Redis"]
    assert "deepeyes sandbox serve" in problems["sandbox and Redis"]


def test_what_is_missing_is_named_before_anything_starts(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json" in failing(tiny(toy, model=str(tmp_path / "empty")))["model"]
    assert "is no folder" in failing(tiny(toy, model=str(tmp_path / "none")))["model"]
    assert "no data file matches" in failing(tiny(toy, train_files=[str(tmp_path / "*.parquet")]))["train data"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 oops")
    assert "no readable parquet" in failing(tiny(toy, train_files=[str(tmp_path / "broken.parquet")]))["train data"]
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"]}), tmp_path / "short.parquet")
    assert "lacks data_source" in failing(tiny(toy, train_files=[str(tmp_path / "short.parquet")]))["train data"]
    table = pyarrow.parquet.read_table(toy / "data/rl_train.parquet")
    wrong = table.set_column(table.schema.get_field_index("data_source"), "data_source", [["gsm8k"] * len(table)])
    pyarrow.parquet.write_table(wrong, tmp_path / "source.parquet")
    assert (
        "no reward for data source 'gsm8k'"
        in failing(tiny(toy, train_files=[str(tmp_path / "source.parquet")]))["train data"]
    )


def test_a_run_that_is_not_ready_says_so_and_starts_nothing(toy, tmp_path, capsys):
    arguments = [
        "--recipe",
        "tiny_cpu",
        f"run.model={toy / 'models/base'}",
        f"run.train_files=['{toy / 'data/rl_train.parquet'}']",
        f"run.directory={tmp_path / 'run'}",
    ]
    with pytest.raises(SystemExit, match="nothing was started"):
        main(arguments)
    assert "FAIL  sandbox and Redis" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_overlay_is_put_over_a_recipe_and_under_the_overrides(monkeypatch):
    monkeypatch.setenv("SFT_MODEL", "m")
    plain = load_recipe("qwen2_5_vl_7b")
    over = load_recipe(
        "qwen2_5_vl_7b", ["verl.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2"], overlays=["_no_flash_attn"]
    )
    assert plain.verl["actor_rollout_ref"]["model"]["use_remove_padding"] is True
    assert over.verl["actor_rollout_ref"]["model"]["use_remove_padding"] is False
    assert over.verl_extra["actor_rollout_ref.model.override_config.attn_implementation"] == "sdpa"
    assert over.verl["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] == 2
    assert (
        over.verl["actor_rollout_ref"]["actor"]["clip_ratio_high"]
        == plain.verl["actor_rollout_ref"]["actor"]["clip_ratio_high"]
    )


def test_an_unknown_overlay_lists_those_there_are():
    with pytest.raises(RecipeError, match="no overlay '_flash'.*_no_flash_attn"):
        load_recipe("tiny_cpu", overlays=["_flash"])
