import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.recipes import RecipeError
from cold_start.check_data import check_conversation, num_image_tokens
from cold_start.prepare_data import prepare_data
from cold_start.recipe import RECIPES, DataSettings, load_recipe
from cold_start.train import latest_checkpoint, main, resolve
from tests.conftest import png

GOOD = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "<image>q"},
        {"role": "assistant", "content": "<think>t</think><answer>a</answer>"},
    ],
    "images": ["a.png"],
}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "a.png").write_bytes(png(56, 56))
    (tmp_path / "broken.png").write_bytes(b"oops")
    return tmp_path


def changed(**edits) -> dict:
    conversation = json.loads(json.dumps(GOOD))
    for key, value in edits.items():
        if key == "user":
            conversation["messages"][1]["content"] = value
        elif key == "assistant":
            conversation["messages"][2]["content"] = value
        else:
            conversation[key] = value
    return conversation


def problems(conversation, directory, cutoff_len=512) -> list[str]:
    return list(
        check_conversation(
            conversation, images_directory=directory, cutoff_len=cutoff_len, image_max_pixels=12544, count_tokens=len
        )
    )


def test_a_good_conversation_has_no_problem(images):
    assert problems(GOOD, images) == []


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (changed(messages=GOOD["messages"][:2]), "roles are user; LLaMA-Factory drops"),
        (
            changed(messages=[*GOOD["messages"], {"role": "assistant", "content": "<answer>x</answer>"}]),
            "LLaMA-Factory drops",
        ),
        (changed(user="no picture"), "0 <image> placeholders for 1 images"),
        (changed(assistant="no tags"), "turn 1 holds no action"),
        (changed(assistant="<code>print(1)</code>"), "without a ```python block"),
        (changed(images=["lost.png"]), "lost.png cannot be read"),
        (changed(images=["broken.png"]), "broken.png cannot be read"),
        (changed(user="<image>" + "x" * 600), "cutoff_len 512 would cut it inside an image"),
        ({"messages": []}, "it has no `messages`"),
        ({"messages": [{"role": "user", "content": 3}]}, "no text `content`"),
    ],
)
def test_every_conversation_that_training_would_lose_is_named_with_its_reason(images, conversation, reason):
    assert any(reason in problem for problem in problems(conversation, images))


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([12544, 262144, 12845056]))
def test_image_tokens_are_counted_as_the_model_counts_them(width, height, max_pixels):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    if max(width, height) / min(width, height) < 200:
        new_height, new_width = smart_resize(height, width, 28, min_pixels=3136, max_pixels=max_pixels)
        assert num_image_tokens(width, height, max_pixels=max_pixels) == new_height * new_width // 784


def test_the_copy_has_absolute_paths_and_the_source_is_untouched(images, tmp_path):
    source = tmp_path / "sft.json"
    source.write_text(json.dumps([GOOD, changed(assistant="no tags")]))
    before = source.read_bytes()
    kept, dropped = prepare_data(
        DataSettings(files=(str(source),)), tmp_path / "out", cutoff_len=512, image_max_pixels=12544, count_tokens=len
    )
    assert (kept, [problem.source for problem in dropped]) == (1, ["sft.json[1]"])
    (conversation,) = json.loads((tmp_path / "out/deepeyes.json").read_text())
    assert conversation["images"] == [str(tmp_path / "a.png")]
    with Image.open(conversation["images"][0]) as image:
        assert image.size == (56, 56)
    assert source.read_bytes() == before
    assert json.loads((tmp_path / "out/dataset_info.json").read_text())["deepeyes"]["formatting"] == "sharegpt"
    assert "sft.json[1]" in (tmp_path / "out/dropped.jsonl").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "cannot be read as JSON"),
        ("{}", "expected a list"),
        ("[]", "hold no conversation"),
        ('[{"messages": 1}]', "cannot be trained on"),
    ],
)
def test_a_broken_data_file_is_one_clear_message(tmp_path, content, message):
    source = tmp_path / "sft.json"
    source.write_text(content)
    with pytest.raises(RecipeError, match=message):
        prepare_data(
            DataSettings(files=(str(source),)), tmp_path / "o", cutoff_len=9, image_max_pixels=3136, count_tokens=len
        )
    with pytest.raises(RecipeError, match="no data file matches"):
        prepare_data(
            DataSettings(files=("/none/*.json",)), tmp_path / "o", cutoff_len=9, image_max_pixels=3136, count_tokens=len
        )


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    recipe = load_recipe(path.stem)
    assert recipe.llamafactory["template"] == "qwen2_vl"
    deepspeed = recipe.llamafactory.get("deepspeed")
    assert deepspeed is None or json.loads((RECIPES.parent.parent / deepspeed).read_text())


def test_published_values_are_in_the_recipes():
    small, large = load_recipe("qwen2_5_vl_7b").llamafactory, load_recipe("qwen2_5_vl_32b").llamafactory
    assert (small["cutoff_len"], large["cutoff_len"]) == (20480, 16384)
    assert large["model_name_or_path"].endswith("32B-Instruct")
    for recipe in (small, large):
        assert (recipe["learning_rate"], recipe["num_train_epochs"], recipe["image_max_pixels"]) == (1e-5, 3.0, 1003520)
        assert recipe["freeze_vision_tower"] is True
        assert recipe["freeze_multi_modal_projector"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cold_start: {files: [x], fils: [y]}\nllamafactory: {}", "fils"),
        ("cold_start: {files: [x]}\nllamafactory: {template: a}", r"lacks llamafactory\.model_name_or_path"),
        ("cold_start: [", "broken YAML"),
        ("cold_start: {files: ['${NOT_SET_ANYWHERE}']}\nllamafactory: {}", "environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_a_wrong_recipe_is_one_clear_message(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_those_that_are():
    with pytest.raises(RecipeError, match="qwen2_5_vl_32b, qwen2_5_vl_7b, tiny_cpu"):
        load_recipe("qwen9")


def test_resuming_loads_the_model_from_the_newest_complete_checkpoint(tmp_path):
    for step, complete in ((100, True), (200, True), (300, False)):
        directory = tmp_path / f"checkpoint-{step}"
        directory.mkdir()
        if complete:
            (directory / "trainer_state.json").write_text("{}")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-200"
    settings = resolve(load_recipe("tiny_cpu"), tmp_path)
    assert settings["model_name_or_path"] == settings["resume_from_checkpoint"] == str(tmp_path / "checkpoint-200")
    assert "resume_from_checkpoint" not in resolve(load_recipe("tiny_cpu"), tmp_path / "new")


def test_a_missing_model_stops_before_anything_starts(tmp_path):
    recipe = yaml.safe_load((RECIPES / "tiny_cpu.yaml").read_text())
    recipe["llamafactory"] |= {"model_name_or_path": str(tmp_path / "none"), "output_dir": str(tmp_path / "o")}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe))
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match=r"there is no .*none/config\.json"):
        main([str(path)])
