"""A model's own chat template is held against what rollouts write, and a difference is named."""

import json
import shutil

import pytest

from agent.chat_formats import all_formats, format_of_template
from reinforcement_learning.checks.model import check_model
from reinforcement_learning.checks.templates import difference
from reinforcement_learning.recipe import load_recipe

QWEN25, INSTRUCT, THINKING = (format_of_template(name) for name in ("qwen2_vl", "qwen3_vl_nothink", "qwen3_vl"))
PART = "{% elif 'text' in part %}{{ part['text'] }}"


@pytest.mark.parametrize("chat_format", all_formats(), ids=lambda chat_format: chat_format.name)
def test_the_template_that_we_serve_with_is_what_rollouts_write(chat_format):
    assert difference(chat_format.chat_template, chat_format) == ""


@pytest.mark.parametrize(
    ("template", "chat_format", "said"),
    [
        # The template of another family.
        (QWEN25.chat_template, INSTRUCT, "without a system message, behind '<|im_start|>', it has 'system"),
        (INSTRUCT.chat_template, QWEN25, "where rollouts have 'system"),
        # Thoughts of earlier replies left out, as the hub's Qwen3-VL Thinking does.
        (
            THINKING.chat_template.replace(PART, "{% elif 'text' in part %}{{ part['text'].split('</think>')[-1] }}"),
            THINKING,
            r"where rollouts have '<think>\nSmall.",
        ),
        # Images that are numbered, as by `add_vision_id`.
        (
            QWEN25.chat_template.replace("<|vision_start|><|image_pad|>", "Picture 1: <|vision_start|><|image_pad|>"),
            QWEN25,
            "it has 'Picture 1: <|vision_start|>",
        ),
        ("{{ raise_exception('no images, please') }}", QWEN25, "(TemplateError: no images, please)"),
        ("{% for message in messages %}{{ message.content + '' }}{% endfor %}", QWEN25, "(TypeError: "),
        ("{% if %}", QWEN25, "(TemplateSyntaxError: "),
    ],
)  # fmt: skip
def test_a_template_that_writes_something_else_is_named_with_the_place(template, chat_format, said):
    assert said in difference(template, chat_format)


@pytest.mark.parametrize("own", [True, False])
def test_the_dry_run_says_it_beside_the_model(toy, tmp_path, own):
    model = shutil.copytree(toy / "models/base", tmp_path / "model")
    for name in ("tokenizer_config.json", "chat_template.json"):
        values = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(values | ({} if own else {"chat_template": INSTRUCT.chat_template})))
    said = check_model(load_recipe("tiny_cpu", [f"run.model={model}"]))
    assert "talked to as Qwen2-VL and Qwen2.5-VL" in said
    assert ("its own chat template is another: without a system message" in said) is not own
