"""What holds for every family; LLaMA-Factory, transformers and Jinja say what is right."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import chat_formats
from agent.chat_formats import (
    UnknownFamily,
    all_formats,
    chat_template_of,
    format_of,
    format_of_folder,
    format_of_hub_name,
    format_of_template,
    image_rule_for,
    without_reply_end,
)
from agent.images import ImageRule
from agent.messages import escape
from tests.conftest import ROOT
from tests.unit.test_repository import FILES

FORMATS = pytest.mark.parametrize("talk", all_formats(), ids=lambda talk: talk.name)
TEXT = st.text(max_size=30).map(escape)


def endings(talk):
    """What a whole conversation may end with behind the last reply's text; a family may leave its end to the next turn."""
    return ("", talk.reply_end, f"{talk.reply_end}\n")


def render(talk, messages, **options):
    """A Jinja template as transformers and servers render it."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(talk.chat_template).render(messages=messages, **options)


@FORMATS
def test_a_foreign_text_that_holds_a_special_token_is_taken_apart(talk):
    for token in talk.special_tokens:
        assert not any(other in escape(f"a{token}b") for other in talk.special_tokens)


@FORMATS
def test_an_images_tokens_are_never_sampled_and_the_end_of_a_reply_may_be(talk):
    assert {talk.image_start, talk.image_pad, talk.image_end, talk.video_pad} <= set(talk.never_sampled)
    assert talk.reply_end not in talk.never_sampled
    assert {*talk.never_sampled, talk.reply_end, talk.padding} <= set(talk.special_tokens)
    assert talk.image(3).count(talk.image_pad) == 3


def as_messages(system, question, replies, observations, *, parts):
    """The conversation for a Jinja template; a server may hand texts over as parts."""

    def content(text):
        pieces = re.split("(<image>)", text)
        return [{"type": "image"} if piece == "<image>" else {"type": "text", "text": piece} for piece in pieces if piece]

    said = [("system", system)] if system is not None else []
    said.append(("user", question))
    for reply, observation in zip(replies, [*observations, None], strict=True):
        said += [("assistant", reply)] + ([] if observation is None else [("user", observation)])
    return [{"role": role, "content": content(text) if parts or "<image>" in text else text} for role, text in said]


@FORMATS
@settings(max_examples=40)
@given(data=st.data())
def test_the_jinja_template_writes_the_same_conversation(talk, data):
    system = data.draw(st.one_of(st.none(), TEXT.filter(bool)))
    turns = data.draw(st.integers(1, 3))
    replies = data.draw(st.lists(TEXT.filter(bool), min_size=turns, max_size=turns))
    observations = data.draw(st.lists(TEXT.map(lambda text: f"<image>{text}"), min_size=turns - 1, max_size=turns - 1))
    image = talk.image(1)
    opened = ([("system", system)] if system is not None else []) + [("user", f"{image}what?")]
    ours = talk.opening(opened)
    for reply, observation in zip(replies, [*observations, None], strict=True):
        ours += talk.primer + reply
        if observation is not None:
            ours += talk.reply_end + talk.after_reply([("user", observation.replace("<image>", image))])
    messages = as_messages(system, "<image>what?", replies, observations, parts=data.draw(st.booleans()))
    assert render(talk, messages).removeprefix(ours) in endings(talk)
    assert render(talk, messages[:-1], add_generation_prompt=True) == ours.removesuffix(replies[-1])


@pytest.fixture(scope="session")
def tokenizer(toy):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(toy / "models/base")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@FORMATS
@pytest.mark.parametrize("system", [None, "You are an agent."])
def test_llama_factory_writes_the_same_conversation(talk, system, tokenizer):
    from llamafactory.data.template import TEMPLATES

    thought = f"{talk.primer or '<think>'}I look.</think>\n"
    replies = [f"{thought}<code>\n```python\nx\n```\n</code>", f"{thought}<answer>red</answer>"]
    messages = [
        {"role": "user", "content": "What colour?"},
        {"role": "assistant", "content": replies[0]},
        {"role": "user", "content": "Code execution result: none"},
        {"role": "assistant", "content": replies[1]},
    ]
    opened = ([("system", system)] if system is not None else []) + [("user", "What colour?")]
    ours = talk.opening(opened) + replies[0] + talk.reply_end
    ours += talk.after_reply([("user", "Code execution result: none")]) + replies[1]
    pairs = TEMPLATES[talk.llama_factory_template].encode_multiturn(tokenizer, messages, system)
    theirs = tokenizer.decode([token for asked, said in pairs for token in (*asked, *said)], skip_special_tokens=False)
    assert theirs.removeprefix(ours) in endings(talk)


@FORMATS
def test_a_models_type_and_its_template_find_its_format(talk):
    for model_type in talk.model_types:
        assert format_of(model_type, talk.chat_template) is talk
    assert format_of_template(talk.llama_factory_template) is talk


def test_the_format_of_a_folder_follows_its_config_and_whichever_file_holds_the_template(tmp_path):
    thinking = format_of_template("qwen3_vl")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    assert format_of_folder(tmp_path).name == "Qwen3-VL Instruct"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": thinking.chat_template}))
    assert format_of_folder(tmp_path) is thinking
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": format_of("qwen3_vl").chat_template}))
    assert format_of_folder(tmp_path).name == "Qwen3-VL Instruct"
    (tmp_path / "chat_template.jinja").write_text(thinking.chat_template)
    assert chat_template_of(tmp_path) == thinking.chat_template
    assert format_of_folder(tmp_path) is thinking


# The ends of the templates of Qwen's models, from the hub.
@pytest.mark.parametrize(
    ("end", "thinks"),
    [
        ("{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}", False),
        ("{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}", True),
    ],
)
def test_a_template_that_opens_a_thought_is_a_thinking_models(end, thinks):
    template = "{% if '</think>' in content %}<think>{% endif %}" + end
    assert chat_formats.begins_with_a_thought(template) is thinks


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2-VL and Qwen2.5-VL"),
        ("Qwen/Qwen2-VL-2B", "Qwen2-VL and Qwen2.5-VL"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "Qwen3-VL Instruct"),
        ("Qwen/Qwen3-VL-8B-Thinking", "Qwen3-VL Thinking"),
        ("OpenGVLab/InternVL3-8B", None),
        ("Qwen/Qwen3-8B", None),
    ],
)
def test_a_name_on_the_hub_promises_a_family(name, found):
    talk = format_of_hub_name(name)
    assert (talk and talk.name) == found


def test_an_unknown_family_is_refused_with_the_list_and_the_page():
    for refuse in (lambda: format_of("llava"), lambda: format_of(None)):
        with pytest.raises(UnknownFamily, match=r"Qwen3-VL Instruct \(qwen3_vl, qwen3_vl_moe\).*docs/adding_a_family\.md"):
            refuse()
    with pytest.raises(UnknownFamily, match=r"qwen3_vl_nothink \(Qwen3-VL Instruct\).*docs/adding_a_family\.md"):
        format_of_template("default")


def test_a_processor_of_another_family_is_refused_and_its_limits_are_taken():
    talk = format_of("qwen3_vl")
    rule = talk.image_rule(20_000, ImageRule(32, 4_096, 16_384))
    assert (rule.factor_px, rule.min_pixels, rule.max_pixels) == (32, 4_096, 16_384)
    assert talk.image_rule(100_000).max_pixels == 100_000
    with pytest.raises(ValueError, match="squares of 28 px, one to a token; those of Qwen3-VL Instruct have 32 px"):
        talk.image_rule(None, ImageRule(28, 4_096, 16_384))


@pytest.mark.parametrize("form", ["size", "pixels", "nested", "none"])
def test_a_models_folder_has_the_last_word_about_its_images_and_a_name_has_its_familys(form, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    own = {
        "size": {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 4096, "longest_edge": 16_384}},
        "pixels": {"min_pixels": 4096, "max_pixels": 16_384},
        "nested": {"image_processor": {"size": {"shortest_edge": 4096, "longest_edge": 16_384}}},
    }
    if form != "none":
        name = "processor_config.json" if form == "nested" else "preprocessor_config.json"
        (tmp_path / name).write_text(json.dumps(own[form]))
    expected = ImageRule(32, 65_536, 1_003_520) if form == "none" else ImageRule(32, 4096, 16_384)
    assert image_rule_for(str(tmp_path), 1_003_520) == expected
    assert image_rule_for("Qwen/Qwen3-VL-8B-Instruct", 1_003_520) == ImageRule(32, 65_536, 1_003_520)
    assert image_rule_for("Qwen/Qwen2.5-VL-7B-Instruct", None) == ImageRule(28, 3136, 12_845_056)
    assert image_rule_for("gpt-x", 262_144) == image_rule_for("", 262_144) == ImageRule(28, 3136, 262_144)
    with pytest.raises(ValueError, match="shown at least 65,536"):
        image_rule_for("Qwen/Qwen3-VL-8B-Instruct", 10_000)


@pytest.mark.slow
@FORMATS
@settings(max_examples=300)
@given(width=st.integers(1, 6000), height=st.integers(1, 6000), limit=st.sampled_from([None, 262_144, 1_003_520]))
def test_an_image_that_the_rule_fitted_is_left_alone_by_the_familys_own_processor(talk, width, height, limit):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rule = talk.image_rule(limit)
    wide, high = rule.size(width, height)
    assert smart_resize(high, wide, talk.factor_px, talk.min_pixels, talk.max_pixels) == (high, wide)
    assert rule.num_tokens(width, height) == wide * high // talk.factor_px**2


def test_a_server_of_any_family_may_leave_the_end_of_a_reply_in_it():
    for talk in all_formats():
        assert without_reply_end(f"red{talk.reply_end}") == "red"
    assert without_reply_end("red") == "red"


def test_no_product_file_outside_their_home_names_a_token_of_a_family():
    tokens = {token for talk in all_formats() for token in talk.special_tokens}
    product = [name for name in FILES if name.endswith((".py", ".js", ".yaml", ".sh", ".txt", ".html"))]
    for name in product:
        if not name.startswith(("tests/", "agent/chat_formats/")):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not [token for token in tokens if token in text], name
