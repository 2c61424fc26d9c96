import json
import multiprocessing

import pytest
import yaml
from PIL import Image

from agent.recipes import RecipeError, shared_value
from cold_start.check_data import conversation_problems
from cold_start.examination import examine, fingerprint
from cold_start.prepare_data import examine_data, prepared_copy, read_sources, write_copy
from cold_start.recipe import RECIPES, DataSettings, load_recipe
from tests.conftest import png
from tests.unit.cold_start.conftest import GOOD, changed, settings_for

# Importing LLaMA-Factory takes half a minute.
pytestmark = pytest.mark.timeout(600)


def test_a_good_conversation_has_no_problem(images, pipeline):
    assert examine(GOOD, images, pipeline).reasons == ()


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (changed(messages=GOOD["messages"][:2]), "roles are system, user; LLaMA-Factory drops"),
        (
            changed(messages=[*GOOD["messages"], {"role": "assistant", "content": "<answer>x</answer>"}]),
            "LLaMA-Factory drops",
        ),
        (changed(user="no picture"), "0 <image> placeholders for 1 images"),
        (changed(assistant="no tags"), "turn 1 holds no action"),
        (changed(assistant="<code>print(1)</code>"), "without a ```python block"),
        (changed(assistant='<tool_call>{"name": 1}</tool_call>'), "turn 1 holds no action"),
        (changed(assistant=" "), "message 2 is empty"),
        (changed(user="", images=[]), "message 1 is empty"),
        (changed(images=["lost.png"]), "lost.png cannot be read"),
        (changed(images=["broken.png"]), "broken.png cannot be read"),
        (changed(images=["."]), "cannot be read"),
        (changed(images=[""]), "image 0 is an empty text; expected a path"),
        (changed(images=["a\0.png"]), "no file name"),
        (changed(images={"a": "b"}), "`images` is a dict; expected a list of paths"),
        (changed(user="<image>" + "x" * 600), "cutoff_len 512 would cut it short"),
        (changed(user="<image>\ud83d"), "half a surrogate"),
        (changed(user="<image> <video>"), "message 1 holds <video>, for which LLaMA-Factory wants a file; write [video]"),
        ({"messages": []}, "it has no `messages`"),
        ({"messages": "hello"}, "it has no `messages`"),
        ({"messages": [{"role": "user", "content": 3}]}, "no text `content`"),
        ({"messages": ["hello"]}, "no text `content`"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "it has no `messages`"),
        ("text", "it is no JSON object"),
        (None, "it is no JSON object"),
    ],
)
def test_every_conversation_that_training_would_lose_is_named_with_its_reason(images, pipeline, conversation, reason):
    assert any(reason in problem for problem in examine(conversation, images, pipeline).reasons)


def test_all_that_is_wrong_with_a_conversation_is_said(images):
    problems = conversation_problems(changed(assistant="no tags", images=[None, "a.png"], system="<image>"))
    assert len(problems) == 4


def write_rows(directory, rows):
    source = directory / "sft.json"
    source.write_text(json.dumps(rows))
    return DataSettings(files=(str(source),))


def prepare(data, directory, pipeline, toy):
    settings = settings_for(toy / "models/base")
    return write_copy(examine_data(data, settings, load_encoder=lambda: pipeline), directory, pipeline.rule)


def test_the_copy_has_absolute_paths_and_the_source_is_untouched(images, tmp_path, pipeline, toy):
    data = write_rows(tmp_path, [GOOD, changed(assistant="no tags")])
    before = (tmp_path / "sft.json").read_bytes()
    prepared = prepare(data, tmp_path / "out", pipeline, toy)
    assert (prepared.num_kept, prepared.num_left_out) == (1, 1)
    (conversation,) = json.loads((tmp_path / "out/deepeyes.json").read_text())
    assert conversation["images"] == [str(tmp_path / "a.png")]
    with Image.open(conversation["images"][0]) as image:
        assert image.size == (56, 56)
    assert (tmp_path / "sft.json").read_bytes() == before
    assert json.loads((tmp_path / "out/dataset_info.json").read_text())["deepeyes"]["formatting"] == "sharegpt"
    (line,) = (tmp_path / "out/dropped.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "sft.json[1]"
    assert prepared_copy(tmp_path / "out") == prepared


def test_a_second_start_examines_nothing_again(images, tmp_path, pipeline, toy):
    data = write_rows(tmp_path, [GOOD, changed(user="<image>other")])
    first = prepare(data, tmp_path / "out", pipeline, toy)

    def never():
        raise AssertionError("examined again")

    again = examine_data(data, settings_for(toy / "models/base", learning_rate=1.0), load_encoder=never)
    assert write_copy(again, tmp_path / "elsewhere", pipeline.rule) == first


@pytest.mark.parametrize("change", ["file", "image", "cutoff", "tokenizer", "image gone"])
def test_verdicts_are_remembered_for_the_same_files_images_and_settings_only(images, tmp_path, toy, change):
    data = write_rows(tmp_path, [GOOD])
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text("{}")
    settings = settings_for(model)
    before = fingerprint(read_sources(data), settings)
    assert fingerprint(read_sources(data), settings) == before
    if change == "file":
        write_rows(tmp_path, [GOOD, GOOD])
    elif change == "image":
        (tmp_path / "a.png").write_bytes(png(57, 56))
    elif change == "cutoff":
        settings["cutoff_len"] = 17
    elif change == "tokenizer":
        (model / "tokenizer.json").write_text("{ }")
    else:
        (tmp_path / "a.png").unlink()
    assert fingerprint(read_sources(data), settings) != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "cannot be read as JSON"),
        ("{}", "expected a list"),
        ("[]", "hold no conversation"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_broken_data_file_is_one_clear_message(tmp_path, content, message):
    source = tmp_path / "sft.json"
    source.write_text(content)
    with pytest.raises(RecipeError, match=message):
        read_sources(DataSettings(files=(str(source),)))


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("\ufeff[{0}, {1},]", ("a byte order mark", "a comma behind the last element")),
        ("{0}\n{1}\n", ("JSON lines in place of a list",)),
        ("[{0} {1}]", ("no comma before it",)),
        ("\ufeff[{0}, {1}]", ()),
    ],
)
def test_published_json_is_read_as_it_is_and_what_was_mended_is_told(tmp_path, text, mended):
    talk = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<answer>2</answer>"}]}
    both = [json.dumps(talk), json.dumps(talk | {"source": "b"})]
    path = tmp_path / "sft.json"
    path.write_text(text.replace("{0}", both[0]).replace("{1}", both[1]))
    (source,) = read_sources(DataSettings(files=(str(path),)))
    assert source.conversations == [talk, talk | {"source": "b"}]
    assert set(source.mended) == set(mended)


def test_images_are_found_by_the_ends_of_their_authors_paths_and_only_below_the_datas_folders(tmp_path):
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/json").mkdir()
    (tmp_path / "data/images/a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    images = ["/mnt/of/the/author/images/a.png", "images/a.png", "../secret.png", "/none/secret.png"]
    path = tmp_path / "data/json/sft.json"
    path.write_text(json.dumps([{"messages": [], "images": images}]))
    (source,) = read_sources(DataSettings(files=(str(path),), images_directory=str(tmp_path / "data/json")))
    there = str(tmp_path / "data/images/a.png")
    assert source.conversations[0]["images"] == [there, there, *images[2:]]
    assert source.mended == ("2 paths of images that are not there, which were found by their ends",)


def test_all_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.json").write_text("[")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"(?s)a\.json.*b\.json"):
        read_sources(DataSettings(files=(str(tmp_path / "*.json"),)))
    with pytest.raises(RecipeError, match=r"no data file matches '/none/\*\.json', '/nor/this'"):
        read_sources(DataSettings(files=("/none/*.json", "/nor/this")))


def _prepare_often(examined, directory, rule, rounds):
    for number in range(rounds):
        if number % 2:
            (directory / "dataset_info.json").unlink(missing_ok=True)
        write_copy(examined, directory, rule)


def test_several_nodes_prepare_at_once_and_a_reader_always_sees_a_whole_copy(images, tmp_path, pipeline, toy):
    data = write_rows(tmp_path, [changed(user=f"<image>{number}") for number in range(300)])
    examined = examine_data(data, settings_for(toy / "models/base"), load_encoder=lambda: pipeline)
    directory = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    preparers = [context.Process(target=_prepare_often, args=(examined, directory, pipeline.rule, 30)) for _ in range(2)]
    for preparer in preparers:
        preparer.start()
    reads = 0
    while any(preparer.is_alive() for preparer in preparers) or not reads:
        for name in ("deepeyes.json", "dataset_info.json"):
            try:
                text = (directory / name).read_text()
            except FileNotFoundError:
                continue
            assert json.loads(text)
            reads += name == "deepeyes.json"
    for preparer in preparers:
        preparer.join()
        assert preparer.exitcode == 0
    assert reads > 10
    assert len(json.loads((directory / "deepeyes.json").read_text())) == 300
    assert sorted(path.name for path in directory.iterdir()) == ["dataset_info.json", "deepeyes.json", "dropped.jsonl"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_llama_factory_knows_its_settings(path):
    from llamafactory.extras.constants import DEFAULT_TEMPLATE

    from cold_start.llama_factory import argument_problems

    recipe = load_recipe(path.stem)
    model = recipe.llamafactory["model_name_or_path"].rpartition("/")[2]
    assert recipe.llamafactory["template"] == DEFAULT_TEMPLATE.get(model, "qwen2_vl")
    assert argument_problems(recipe.llamafactory) == []
    deepspeed = recipe.llamafactory.get("deepspeed")
    assert deepspeed is None or json.loads((RECIPES.parent.parent / deepspeed).read_text())


def test_published_values_are_in_the_recipes():
    small, large = load_recipe("qwen2_5_vl_7b"), load_recipe("qwen2_5_vl_32b")
    assert (small.llamafactory["cutoff_len"], large.llamafactory["cutoff_len"]) == (20480, 16384)
    assert large.llamafactory["model_name_or_path"].endswith("32B-Instruct")
    for recipe in (small, large):
        settings = recipe.llamafactory
        assert (settings["learning_rate"], settings["num_train_epochs"]) == (1e-5, 3.0)
        assert settings["image_max_pixels"] == shared_value("image_max_pixels")
        assert settings["freeze_vision_tower"] is True
        assert settings["freeze_multi_modal_projector"] is True
        assert recipe.cold_start.batch_size == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cold_start: {files: [x], fils: [y]}\nllamafactory: {}", "fils"),
        ("cold_start: {files: [x]}\nllamafactory: {template: a}", r"lacks llamafactory\.model_name_or_path"),
        ("cold_start: {files: [x]}\nllamafactory: {template: a}", r"lacks llamafactory\.cutoff_len"),
        ("cold_start: {files: [x]}\nllamafactory: {dataset: a}", r"sets llamafactory\.dataset, which is filled in"),
        ("cold_start: {files: [x]}\nllamafactory: {cutoff_len: many}", r"cutoff_len 'many'; expected a whole number"),
        ("cold_start: {files: [x]}\nllamafactory: {stage: dpo}", r"llamafactory\.stage 'dpo'; a cold start has 'sft'"),
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
    with pytest.raises(RecipeError, match="qwen2_5_vl_32b, qwen2_5_vl_7b, qwen3_vl_30b_a3b, qwen3_vl_8b, tiny_cpu"):
        load_recipe("qwen9")


@pytest.mark.parametrize("key", ["model_name_or_path", "output_dir"])
def test_a_path_with_a_space_is_refused(tmp_path, key):
    recipe = yaml.safe_load((RECIPES / "tiny_cpu.yaml").read_text())
    recipe["llamafactory"][key] = "/a b"
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(RecipeError, match="splits its command at spaces"):
        load_recipe(str(path))


def test_settings_of_ours_are_overridden_by_their_full_names():
    recipe = load_recipe("tiny_cpu", ("cold_start.files=[a.json]", "cold_start.on_bad=drop", "max_steps=3"))
    assert recipe.cold_start.files == ("a.json",)
    assert recipe.cold_start.on_bad == "drop"
    assert recipe.llamafactory["max_steps"] == 3
    with pytest.raises(RecipeError, match=r"tiny_cpu\.yaml is no cold-start recipe: cold_start\.file: .*files"):
        load_recipe("tiny_cpu", ("cold_start.file=[a.json]",))
