"""LLaMA-Factory's own code decides: what it drops, cuts or dies of is left out, and what is kept it trains on whole."""

import io
import json
import random

import pytest
from PIL import Image

from agent.images import ImageFile
from agent.messages import escape
from agent.recipes import RecipeError
from cold_start.examination import Source, examine, examine_all
from cold_start.images import write_images
from cold_start.llama_factory import Pipeline
from cold_start.prepare_data import examine_data, write_copy
from cold_start.recipe import DataSettings
from tests.conftest import png
from tests.pictures import QWEN2_VL_RULE, pictures
from tests.unit.cold_start.conftest import GOOD, changed, settings_for, write_unchecked

# It leaves the files of broken images open.
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

PLAIN = changed(user="q", images=[])


def jpeg(width, height, **options):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_messages(*messages, images=()):
    return {"messages": [{"role": role, "content": content} for role, content in messages], "images": list(images)}


ANSWER = ("assistant", "<think>t</think><answer>a</answer>")
CASES = {
    "video in text": (changed(user="<image>what does <video> do"), "message 1 holds <video>"),
    "audio in an answer": (changed(assistant="<answer>the tag <audio></answer>"), "message 2 holds <audio>"),
    "png cut off": (changed(images=["cut.png"]), "cut.png cannot be read"),
    "jpeg cut off": (changed(images=["cut.jpg"]), "cut.jpg cannot be read"),
    "no image": (changed(images=["broken.png"]), "broken.png cannot be read"),
    "two system messages": (with_messages(("system", "s"), ("system", "s"), ("user", "q"), ANSWER), "may stand first only"),
    "system in the middle": (
        with_messages(("user", "q"), ANSWER, ("system", "s"), ("user", "q"), ANSWER),
        "may stand first only",
    ),
    "placeholder in the system message": (
        with_messages(("system", "<image>"), ("user", "q"), ANSWER, images=["a.png"]),
        "the system message holds <image>",
    ),
    "image as an object": (changed(images=[{"path": "a.png", "bytes": "x"}]), "image 0 is an object; expected a path"),
    "image null": (changed(images=[None]), "image 0 is null; expected a path"),
    "too many placeholders": (changed(user="<image><image>q"), "2 <image> placeholders for 1 images"),
    "two users": (with_messages(("user", "q"), ("user", "q"), ANSWER), "roles are user, user, assistant"),
    "ends with a question": (with_messages(("user", "q"), ANSWER, ("user", "q")), "LLaMA-Factory drops"),
    "role of a tool": (with_messages(("user", "q"), ("tool", "x"), ANSWER), "message 1 has role 'tool'"),
    "content null": (with_messages(("user", None), ANSWER), "message 0 has no text `content`"),
    "content a list": (with_messages(("user", [{"type": "text"}]), ANSWER), "message 0 has no text `content`"),
    "no messages": ({"messages": [], "images": []}, "it has no `messages`"),
    "image token in an answer": (changed(assistant="<answer><|image_pad|></answer>"), "turn 1 holds <|image_pad|>"),
    "cut inside an image": (
        changed(user="x" * 480 + "<image>q", images=["a.png"]),
        "cutoff_len 512 would cut it inside an image, which ends training",
    ),
}


@pytest.fixture
def files(images):
    (images / "cut.png").write_bytes(png(300, 200)[:-300])
    (images / "cut.jpg").write_bytes(jpeg(300, 200)[:-2000])
    return images


@pytest.mark.parametrize("case", CASES)
def test_what_llama_factory_drops_cuts_or_dies_of_is_left_out_with_its_reason(
    case, files, pipeline, toy, llama_factory, tmp_path
):
    bad, reason = CASES[case]
    absolute = json.loads(json.dumps(bad))
    absolute["images"] = [str(files / path) if isinstance(path, str) else path for path in bad["images"]]
    settings = settings_for(toy / "models/base")
    try:
        examples = llama_factory(write_unchecked([PLAIN, absolute], tmp_path / "unchecked"), settings)
    except Exception:  # noqa: BLE001 - whatever it dies of
        examples = []
    if len(examples) == 2:  # trained on, but not on what was meant
        assert examples[1]["input_ids"].count(pipeline._image_token_id) != 4 * len(bad["images"])
    verdict = examine(bad, files, pipeline)
    assert reason in "; ".join(verdict.reasons)
    assert examine(PLAIN, files, pipeline).reasons == ()


def random_conversation(rng, directory, number):
    """Turns, images of odd sizes and formats, and sometimes one of many faults."""
    messages, images = [], []
    if rng.random() < 0.6:
        messages.append({"role": "system", "content": "You are an agent. " * rng.randrange(1, 4)})
    for turn in range(rng.randrange(1, 4)):
        text = " ".join(
            rng.choice(["tile", "red", "<|im_end|>", "4", "什么", "<b>", "\n", "é"]) for _ in range(rng.randrange(1, 60))
        )
        for _ in range(rng.choice([0, 0, 1, 2])):
            name = f"{number}_{len(images)}.{rng.choice(['png', 'jpg'])}"
            width, height = rng.choice(
                [(rng.randrange(1, 1500), rng.randrange(1, 60)), (rng.randrange(1, 900), rng.randrange(1, 900))]
            )
            Image.new("RGB", (width, height), (number % 256, 9, 9)).save(directory / name)
            images.append(name)
            text = f"{text}<image>" if rng.random() < 0.5 else f"<image>{text}"
        messages.append({"role": "user", "content": text})
        last = turn == 2 or rng.random() < 0.5
        action = "<answer>red</answer>" if last else "<code>\n```python\nprint(1)\n```\n</code>"
        messages.append({"role": "assistant", "content": f"<think>{'why ' * rng.randrange(9)}</think>{action}"})
        if last:
            break
    conversation = {"messages": messages, "images": images, "index": rng.choice([1, "one", None])}
    fault = rng.randrange(20)
    target = rng.choice(messages)
    if fault == 0:
        target["content"] += rng.choice(["<image>", "<video>", "<audio>", "\ud83d", "<|image_pad|>", "<|vision_start|>"])
    elif fault == 1:
        target["role"] = rng.choice(["system", "tool", "user", "assistant", None, 7])
    elif fault == 2:
        target["content"] = rng.choice([None, "", 3, [], "word " * 3000])
    elif fault == 3 and images:
        path = directory / images[0]
        path.write_bytes(path.read_bytes()[: rng.randrange(1, 400)])
    elif fault == 4:
        conversation["images"] = rng.choice([None, "a.png", [None], [{"path": "a.png"}], ["none.png"], [[]], 3])
    elif fault == 5:
        messages.pop(rng.randrange(len(messages)))
    return conversation


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_kept_llama_factory_trains_on_whole_and_nothing_else(seed, tmp_path, large_images_model, llama_factory):
    rng = random.Random(seed)
    rows = [random_conversation(rng, tmp_path, number) for number in range(120)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = settings_for(large_images_model, image_max_pixels=50_000, cutoff_len=300)
    pipelines = []
    examined = examine_data(
        DataSettings(files=(str(tmp_path / "rows.json"),)),
        settings,
        load_encoder=lambda: pipelines.append(Pipeline(settings)) or pipelines[0],
    )
    assert 40 < len(examined.num_tokens) < 110
    prepared = write_copy(examined, tmp_path / "copy", pipelines[0].rule)
    examples = llama_factory(tmp_path / "copy", settings)
    assert [len(example["input_ids"]) for example in examples] == examined.num_tokens
    assert len(examples) == prepared.num_kept
    assert max(examined.num_tokens) <= 300
    for example, conversation in zip(examples, examined.kept(), strict=True):
        images = [Image.open(path) for path in conversation.images]
        real = sum(pipelines[0].rule.num_tokens(*image.size) for image in images)
        assert example["input_ids"].count(pipelines[0]._image_token_id) == real


def test_a_conversation_as_long_as_the_cutoff_is_kept_and_one_token_more_is_not(tmp_path, toy, llama_factory, images):
    conversation = changed(user="<image>" + "x 7 " * 30)
    for spare in (0, -1):
        whole = Pipeline(settings_for(toy / "models/base", cutoff_len=4096))
        cutoff_len = examine(conversation, images, whole).num_tokens + spare
        settings = settings_for(toy / "models/base", cutoff_len=cutoff_len)
        verdict = examine(conversation, images, Pipeline(settings))
        row = conversation | {"images": [str(images / "a.png")]}
        (example,) = llama_factory(write_unchecked([row], tmp_path / f"rows{spare}"), settings)
        assert len(example["input_ids"]) == cutoff_len
        assert bool(verdict.reasons) == (spare < 0)


def test_images_of_every_kind_and_shape_are_trained_on_as_the_rule_shows_them(
    tmp_path, large_images_model, large_pipeline, llama_factory
):
    from llamafactory.data.mm_plugin import get_mm_plugin

    files = {name: picture.data for name, picture in pictures(613, 412).items()}
    sizes = [(1920, 1080), (124, 2680), (3000, 10), (5, 5), (1000, 27), (1, 1), (40_000, 1), (1, 40_000), (448, 448)]
    files |= {f"{width}x{height}": png(width, height) for width, height in sizes}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    rows = [GOOD | {"images": [name]} for name in files]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = settings_for(large_images_model, image_max_pixels=262_144, cutoff_len=2048)
    examined = examine_data(
        DataSettings(files=(str(tmp_path / "rows.json"),)), settings, load_encoder=lambda: large_pipeline
    )
    assert examined.problems == []
    prepared = write_copy(examined, tmp_path / "copy", large_pipeline.rule)
    assert prepared.num_images == len({data for name, data in files.items() if name != "448x448"})
    examples = llama_factory(tmp_path / "copy", settings)
    plugin = get_mm_plugin("qwen2_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    for data, example, num_tokens in zip(files.values(), examples, examined.num_tokens, strict=True):
        (path,) = example["images"]
        (seen,) = plugin._regularize_images([path], image_max_pixels=262_144, image_min_pixels=1024)["images"]
        shown = large_pipeline.rule.apply(ImageFile(data))
        assert (seen.mode, seen.size, seen.tobytes()) == ("RGB", shown.size, shown.pil().tobytes())
        assert example["input_ids"].count(large_pipeline._image_token_id) == large_pipeline.rule.num_tokens(*shown.size)
        assert len(example["input_ids"]) == num_tokens


def test_an_image_that_needs_nothing_is_read_where_it_lies_and_a_copy_is_made_once(images, tmp_path):
    (images / "large.png").write_bytes(png(300, 200))
    paths = [str(images / name) for name in ("a.png", "large.png", "large.png")]
    rule = QWEN2_VL_RULE.limited(12_544)
    copies = write_images(paths, tmp_path / "copies", rule)
    (copy,) = (tmp_path / "copies").rglob("*.png")
    assert copies == {paths[0]: paths[0], paths[1]: str(copy)}
    before = copy.stat().st_mtime_ns
    assert write_images(paths, tmp_path / "copies", rule) == copies
    assert copy.stat().st_mtime_ns == before
    (images / "large.png").write_bytes(b"oops")
    with pytest.raises(RecipeError, match=r"large\.png has changed since it was looked at"):
        write_images(paths, tmp_path / "copies", rule)


@pytest.mark.parametrize(
    "options", [{"quality": 90}, {"quality": 90, "progressive": True}, {"quality": 90, "subsampling": 0}]
)
def test_a_jpeg_that_is_cut_anywhere_is_told_as_decoding_all_of_it_tells(options, tmp_path, pipeline):
    data = jpeg(230, 170, **options)
    rng = random.Random(0)
    cuts = [*range(len(data) - 40, len(data) + 1), *(rng.randrange(1, len(data)) for _ in range(40))]
    for cut in cuts:
        (tmp_path / "a.png").write_bytes(data[:cut])
        try:
            with Image.open(tmp_path / "a.png") as image:
                image.load()
            whole = True
        except Exception:  # noqa: BLE001 - whatever a decoder raises
            whole = False
        assert (examine(GOOD, tmp_path, pipeline).reasons == ()) == whole, cut


def test_special_tokens_in_what_the_model_reads_are_escaped_as_in_observations(images, pipeline):
    text = "<image>what does <|image_pad|> or <|im_end|> mean"
    examined_row = changed(user=text, system="never write <|im_start|>")
    assert examine(examined_row, images, pipeline).reasons == ()
    from cold_start.check_data import clean

    conversation = clean(examined_row, images)
    assert conversation.num_escaped == 2
    assert conversation.messages[1]["content"] == "<image>" + escape("what does <|image_pad|> or <|im_end|> mean")
    plain = clean(GOOD, images)
    assert (plain.messages, plain.num_escaped) == (GOOD["messages"], 0)


class Fatal:
    """An encoder that kills its process at some conversations, as a decoder that crashes does."""

    def __init__(self, pipeline):
        self._pipeline = pipeline

    def encode(self, conversation):
        import os

        if "fatal" in conversation.messages[1]["content"] and os.getpid() != PARENT:
            os._exit(9)
        if "raises" in conversation.messages[1]["content"]:
            raise MemoryError("no more")
        return self._pipeline.encode(conversation)


PARENT = 0


def test_one_bad_conversation_of_many_never_ends_the_preparation(images, pipeline):
    import os

    global PARENT
    PARENT = os.getpid()
    rows = [GOOD] * 300
    rows[70], rows[200], rows[299] = changed(user="<image>fatal"), changed(user="<image>raises"), {"messages": {"a": 1}}
    (verdicts,) = examine_all([Source(images / "r.json", "", rows, images)], Fatal(pipeline), 2)
    assert [number for number, verdict in enumerate(verdicts) if verdict.reasons] == [70, 200, 299]
    assert "process that read it was killed" in verdicts[70].reasons[0]
    assert "MemoryError: no more" in verdicts[200].reasons[0]
