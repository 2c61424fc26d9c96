import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agent.recipes import RecipeError, load_yaml, parse_override, read_yaml, shared_value


@pytest.mark.parametrize(
    "text", ["1e-5", "1.0e-5", "2E5", "-3e+2", ".5", "5.", "1_000.5", ".inf", "7", "-2", "abc", "1e5x", "e5", "true"]
)
def test_a_number_is_what_llamafactory_and_verl_read(text):
    ours, theirs = load_yaml(f"a: {text}")["a"], OmegaConf.create(f"a: {text}")["a"]
    assert (type(ours), ours) == (type(theirs), theirs)


@given(st.floats(1e-12, 1e12))
def test_a_number_of_an_override_keeps_its_value_in_every_notation(number):
    for text in (f"{number!r}", f"{number:e}", f"{number:.17g}"):
        _, value = parse_override(f"learning_rate={text}")
        assert isinstance(value, float | int)
        assert value == float(text)


def test_a_shared_value_stands_in_one_place(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("block: {image_max_pixels: ${shared.image_max_pixels}}")
    assert read_yaml(recipe) == {"block": {"image_max_pixels": shared_value("image_max_pixels")}}


def test_an_unknown_shared_value_lists_those_there_are(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("block: ${shared.nope}")
    with pytest.raises(RecipeError, match="no shared value 'nope'; agent/shared.yaml has image_max_pixels"):
        read_yaml(recipe)
