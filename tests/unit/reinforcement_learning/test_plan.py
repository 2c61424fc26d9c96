import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.recipes import RecipeError
from deepeyes.cli import main
from deepeyes.plan_cold_start import zero3_checkpoint_bytes
from reinforcement_learning.model_shape import KNOWN, shape_from_config, shape_of
from reinforcement_learning.plan import checkpoint_bytes, make_plan
from reinforcement_learning.plan_advice import advice
from reinforcement_learning.plan_values import GIB, Assumptions, image_tokens
from reinforcement_learning.recipe import RECIPES, load_recipe

GPU_RECIPES = sorted(path.stem for path in RECIPES.glob("qwen*.yaml"))
ROLLOUT, ACTOR = "verl.actor_rollout_ref.rollout", "verl.actor_rollout_ref.actor"


def tensors(path):
    """The header of a safetensors file: an eight-byte length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


# By transformers 5.5.4 on the meta device, from the published config.json.
@pytest.mark.parametrize(
    ("family", "size", "published", "vision"),
    [
        ("qwen2_5_vl", "3b", 3_754_622_976, 668_684_288),
        ("qwen2_5_vl", "7b", 8_292_166_656, 676_550_144),
        ("qwen2_5_vl", "32b", 33_452_718_336, 688_841_984),
        ("qwen3_vl", "2b", 2_127_532_032, 406_957_056),
        ("qwen3_vl", "4b", 4_437_815_808, 415_347_712),
        ("qwen3_vl", "8b", 8_767_123_696, 576_388_336),
        ("qwen3_vl", "32b", 33_357_390_064, 595_266_800),
        ("qwen3_vl", "30b", 31_070_754_032, 538_631_408),
    ],
)
def test_the_parameters_of_the_published_models_are_counted_exactly(family, size, published, vision):
    assert KNOWN[family][size].parameters == published
    assert KNOWN[family][size].vision.parameters == vision


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("saves/deepeyesv2_7b/sft", "Qwen2.5-VL-7B"),
        ("Qwen/Qwen2.5-VL-32B-Instruct", "Qwen2.5-VL-32B"),
        ("saves/qwen3_vl_32b/sft", "Qwen3-VL-32B"),
        ("Qwen/Qwen3-VL-30B-A3B-Thinking", "Qwen3-VL-30B-A3B"),
    ],
)
def test_a_name_says_family_and_size(name, found):
    assert shape_of(name).name == found


def test_the_parameters_of_a_real_model_folder_are_counted_exactly(toy):
    shapes = tensors(toy / "models/base/model.safetensors")
    sizes = {}
    for name, shape in shapes.items():
        sizes[name] = 1
        for extent in shape:
            sizes[name] *= extent
    shape = shape_of(str(toy / "models/base"))
    assert shape.parameters == sum(sizes.values())
    assert shape.vision.parameters == sum(size for name, size in sizes.items() if "visual" in name)


def test_untying_the_embeddings_adds_one_output_head(toy):
    config = json.loads((toy / "models/base/config.json").read_text())
    tied = shape_from_config(config, name="tied")
    flat = {key: value for key, value in config.items() if key != "text_config"} | config["text_config"]
    untied = shape_from_config(flat | {"model_type": "qwen2_5_vl", "tie_word_embeddings": False}, name="untied")
    assert untied.parameters - tied.parameters == tied.text.vocabulary * tied.text.hidden


@pytest.mark.parametrize(
    ("model", "message"),
    [("nowhere/model", "3b, 7b, 32b"), ("saves/7bis", "set run.model"), ("x/0.5b", "set run.model")],
)
def test_a_model_of_unknown_size_is_told_with_what_to_do(model, message):
    with pytest.raises(RecipeError, match=message):
        shape_of(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "no JSON"), ('{"model_type": "llama"}', "'llama'"), ('{"model_type": "qwen2_5_vl"}', "lacks 'hidden_size'")],
)
def test_a_broken_config_is_told_with_its_file(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RecipeError, match=message):
        shape_of(str(tmp_path))


def test_a_checkpoint_of_the_7b_is_weights_and_two_moments_once_for_each_group_of_gpus():
    one = load_recipe("qwen2_5_vl_7b", [f"{ACTOR}.fsdp_config.fsdp_size=-1"])
    assert checkpoint_bytes(one) == pytest.approx(12 * 8_292_166_656, rel=0.001)
    assert checkpoint_bytes(load_recipe("qwen2_5_vl_7b")) == pytest.approx(4 * 12 * 8_292_166_656, rel=0.001)
    merged = load_recipe("qwen2_5_vl_7b_1x8", [f"{ACTOR}.checkpoint.save_contents=[model, optimizer, extra, hf_model]"])
    assert checkpoint_bytes(merged) == pytest.approx(16 * 8_292_166_656, rel=0.001)


def test_a_zero3_checkpoint_of_the_7b_is_what_deepspeed_writes():
    assert zero3_checkpoint_bytes(KNOWN["qwen2_5_vl"]["7b"], frozen_vision=True) == pytest.approx(108e9, rel=0.01)


@pytest.mark.parametrize("name", GPU_RECIPES)
def test_every_gpu_recipe_fits_on_80_gb_cards(name):
    plan = make_plan(load_recipe(name))
    assert plan.gpu.training < 77 * GIB
    assert plan.gpu.rolling_out < 77 * GIB
    assert plan.gpu.kv_tokens > plan.longest_tokens
    assert plan.token_budget >= plan.longest_tokens
    assert plan.disk.checkpoints > 0


@given(st.sampled_from(GPU_RECIPES), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
def test_more_gpus_never_need_more_memory_on_each_and_groups_cover_all(name, gpus):
    recipe = load_recipe(name)
    few, many = make_plan(recipe, gpus=gpus), make_plan(recipe, gpus=2 * gpus if gpus >= 8 else 8)
    assert many.gpu.training <= few.gpu.training
    assert few.layout.copies * few.layout.shards == few.layout.gpus
    assert many.disk.checkpoint >= few.disk.checkpoint


def test_the_same_plan_needs_less_with_what_saves_memory():
    plan = make_plan(load_recipe("qwen2_5_vl_7b"))
    longer = make_plan(load_recipe("qwen2_5_vl_7b", [f"{ACTOR}.ppo_max_token_len_per_gpu=65536"]))
    assert longer.gpu.training > plan.gpu.training
    # Whole logits cost most where flash-attn does not put their gradient in their place.
    whole = [
        make_plan(load_recipe("qwen2_5_vl_7b", ["verl.actor_rollout_ref.model.use_fused_kernels=false"], overlays=overlays))
        for overlays in ([], ["_no_flash_attn"])
    ]
    assert whole[1].gpu.training > whole[0].gpu.training
    offloaded = make_plan(load_recipe("qwen2_5_vl_7b", [f"{ACTOR}.fsdp_config.optimizer_offload=true"]))
    assert offloaded.gpu.rolling_out < plan.gpu.rolling_out
    assert sum(offloaded.host_bytes.values()) > sum(plan.host_bytes.values())
    awake = make_plan(load_recipe("qwen2_5_vl_7b", [f"{ROLLOUT}.free_cache_engine=false"]))
    assert awake.gpu.training - plan.gpu.training == plan.gpu.vllm


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{ACTOR}.ppo_max_token_len_per_gpu=16384"], "ppo_max_token_len_per_gpu 16,384 is less than an episode"),
        (
            ["verl.actor_rollout_ref.model.use_fused_kernels=false", f"{ACTOR}.ppo_max_token_len_per_gpu=131072"],
            "training needs",
        ),
        ([f"{ROLLOUT}.gpu_memory_utilization=0.95"], "rollouts need"),
        ([f"{ROLLOUT}.gpu_memory_utilization=0.27"], "less than one longest episode"),
        ([f"{ROLLOUT}.gpu_memory_utilization=0.4"], "are in flight there"),
        (["verl.trainer.max_actor_ckpt_to_keep=null"], "all checkpoints stay"),
        ([f"{ROLLOUT}.tensor_model_parallel_size=3"], "must divide 32 GPUs"),
        (["verl.data.train_batch_size=255"], "no multiple of 32 GPUs"),
        ([f"{ACTOR}.ppo_mini_batch_size=512"], "larger than train_batch_size"),
        ([f"{ACTOR}.fsdp_config.fsdp_size=12"], "does not divide"),
        (["agent.image_max_pixels=null"], "10,582 tokens, over data.max_prompt_length"),
        ([], "states 4 times"),
        ([], "--max-sessions 1024"),
    ],
)
def test_what_cannot_work_is_warned_of_with_its_key(overrides, words):
    recipe = load_recipe("qwen2_5_vl_7b", overrides)
    assert any(words in line for line in advice(make_plan(recipe), recipe)), advice(make_plan(recipe), recipe)


def test_a_clean_recipe_is_warned_of_nothing_but_sandbox_and_missing_data():
    recipe = load_recipe("qwen2_5_vl_7b_1x8")
    lines = advice(make_plan(recipe, assume=Assumptions(rows=10_000)), recipe)
    assert len(lines) == 1
    assert "--max-sessions 1024" in lines[0]


def test_rows_of_files_that_are_there_give_the_steps(toy):
    recipe = load_recipe(
        "tiny_cpu", [f"run.model={toy / 'models/base'}", f"run.train_files=['{toy / 'data/rl_train.parquet'}']"]
    )
    plan = make_plan(recipe)
    assert (plan.rows, plan.steps_per_epoch, plan.steps, plan.gpu) == (32, 4, 18, None)
    few = load_recipe("tiny_cpu", [f"run.model={toy / 'models/base'}", "verl.data.train_batch_size=64"])
    assert any("no step at all" in line for line in advice(make_plan(few, assume=Assumptions(rows=32)), few))


def test_image_tokens_follow_the_processor():
    assert image_tokens(1280 * 28 * 28, 28) == 1282
    assert image_tokens(3840 * 2160, 28) == 10_582
    assert image_tokens(3840 * 2160, 32) == 8_102


@pytest.mark.parametrize("name", [*GPU_RECIPES, "tiny_cpu"])
def test_the_command_prints_every_recipe(name, toy, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", name, f"run.model={toy / 'models/base'}", "--rows", "5000"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "a checkpoint" in printed
    assert "sandbox sessions at once" in printed


@pytest.mark.parametrize("name", ["qwen2_5_vl_7b", "qwen2_5_vl_32b"])
def test_the_command_plans_the_cold_start(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", name, "--cold-start", "--gpus", "32"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "conversations a step                         128 on 32 GPUs" in printed
    assert "2 kept, and one being saved" in printed


def test_a_cold_start_that_keeps_the_published_ten_checkpoints_is_warned_of_their_size(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "qwen2_5_vl_7b", "--cold-start", "save_total_limit=10"])
    assert "save_total_limit is 10" in (printed := capsys.readouterr().out)
    assert "1,188 GB" in printed


@pytest.mark.parametrize("gpus", ["0", "12", "-8"])
def test_gpus_that_make_no_nodes_are_refused(gpus):
    with pytest.raises(SystemExit, match="expected 1 to 8, or a multiple of 8"):
        main(["plan", "qwen2_5_vl_7b", f"--gpus={gpus}"])
