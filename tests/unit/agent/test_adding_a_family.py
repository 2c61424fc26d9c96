"""The family that docs/adding_a_family.md shows is written as it stands there, found by its name, and held against others' code."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import chat_formats
from agent.chat_formats import format_of, format_of_folder, format_of_hub_name
from agent.images import ImageRule
from tests.conftest import ROOT
from tests.unit.agent import test_chat_formats as contract

((NAME, TEXT),) = re.findall(
    r"<!-- file: chat_formats/(\w+)\.py -->\n```python\n(.*?)\n```", (ROOT / "docs/adding_a_family.md").read_text(), re.DOTALL
)


@pytest.fixture(scope="module")
def glm(tmp_path_factory):
    directory = tmp_path_factory.mktemp("families")
    (directory / f"{NAME}.py").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_formats, "__path__", [*chat_formats.__path__, str(directory)])
        chat_formats.families.cache_clear()
        yield format_of("glm4v")
    chat_formats.families.cache_clear()


def test_it_is_found_by_its_type_its_folder_and_its_name(glm, tmp_path):
    assert chat_formats.families()[NAME] == (glm,)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "glm4v"}))
    assert format_of_folder(tmp_path) is glm
    assert format_of_hub_name("THUDM/GLM-4.1V-9B-Thinking") is glm
    contract.test_a_models_type_and_its_template_find_its_format(glm)


def test_it_keeps_what_holds_for_every_family(glm):
    contract.test_a_foreign_text_that_holds_a_special_token_is_taken_apart(glm)
    contract.test_an_images_tokens_are_never_sampled_and_the_end_of_a_reply_may_be(glm)
    contract.test_the_jinja_template_writes_the_same_conversation(talk=glm)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", [None, "You are an agent."])
def test_llama_factory_writes_the_same_conversation(glm, system, toy):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy / "models/base")
    contract.test_llama_factory_writes_the_same_conversation(glm, system, tokenizer)


@pytest.mark.slow
@settings(max_examples=300)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_its_own_image_processor_leaves_a_fitted_image_alone(glm, width, height):
    from transformers.models.glm4v.image_processing_glm4v import Glm4vImageProcessor, smart_resize

    processor = Glm4vImageProcessor(size={"shortest_edge": 12_544, "longest_edge": 9_633_792})
    rule = glm.image_rule(None, ImageRule.of_processor(processor))
    assert rule == glm.image_rule()
    wide, high = rule.size(width, height)
    limits = {"min_pixels": processor.size["shortest_edge"], "max_pixels": processor.size["longest_edge"]}
    assert smart_resize(2, high, wide, temporal_factor=2, factor=28, **limits) == (high, wide)


def test_a_plan_counts_a_family_that_it_does_not_know_well_enough(glm):
    from reinforcement_learning.model_shape import shape_from_config

    # THUDM/GLM-4.1V-9B-Thinking, config.json; the published model has 10.29 billion parameters.
    config = {
        "model_type": "glm4v", "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 13696,
        "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2, "vocab_size": 151552,
        "vision_config": {"depth": 24, "hidden_size": 1536, "intermediate_size": 13696, "patch_size": 14},
    }  # fmt: skip
    shape = shape_from_config(config, name="GLM-4.1V-9B")
    assert shape.parameters == pytest.approx(10.29e9, rel=0.05)
    assert shape.factor_px == 28
