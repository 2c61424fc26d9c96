import json

import pyarrow
import pyarrow.parquet
import pytest

from agent.recipes import RecipeError
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
        assert (recipe.agent.max_turns, recipe.agent.max_reply_tokens, recipe.agent.primer) == (9, 8192, "<think>")
    clips = [r.verl["actor_rollout_ref"]["actor"] for r in (paper, script)]
    assert [(c["clip_ratio_low"], c["clip_ratio_high"]) for c in clips] == [(0.2, 0.3), (0.2, 0.2)]


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: [none.yaml]", "extends none.yaml"),
        ("extends: [r.yaml]", "extends itself"),
        ("run: [", "broken YAML"),
        ("- a", "holds a list"),
        ("run: {}", "run.model: Field required"),
        ("run: {model: '${NOT_SET_ANYWHERE}'}", "environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_a_broken_recipe_is_one_clear_message(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_those_that_are():
    with pytest.raises(RecipeError, match="qwen2_5_vl_7b, qwen2_5_vl_7b_script, tiny_cpu"):
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
    over = load_recipe("qwen2_5_vl_7b", ["verl.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2"], overlays=["_no_flash_attn"])
    assert plain.verl["actor_rollout_ref"]["model"]["use_remove_padding"] is True
    assert over.verl["actor_rollout_ref"]["model"]["use_remove_padding"] is False
    assert over.verl_extra["actor_rollout_ref.model.override_config.attn_implementation"] == "sdpa"
    assert over.verl["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] == 2
    assert over.verl["actor_rollout_ref"]["actor"]["clip_ratio_high"] == plain.verl["actor_rollout_ref"]["actor"]["clip_ratio_high"]


def test_an_unknown_overlay_lists_those_there_are():
    with pytest.raises(RecipeError, match="no overlay '_flash'.*_no_flash_attn"):
        load_recipe("tiny_cpu", overlays=["_flash"])
