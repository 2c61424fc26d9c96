import json

import pytest

from agent.chat_formats import format_of_template
from evaluation.runs import serve as served


@pytest.mark.parametrize("model_type", ["qwen3_vl", "llava"])
def test_a_checkpoint_is_served_with_the_template_of_its_family_where_that_is_known(tmp_path, monkeypatch, model_type):
    thinking = format_of_template("qwen3_vl")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    # As the hub has it: thoughts of earlier replies are left out.
    own = "{% if loop.last %}<think>{% endif %}" + thinking.chat_template
    (tmp_path / "chat_template.jinja").write_text(own)
    given = []
    monkeypatch.setattr(served, "serve_checkpoint", lambda checkpoint, **options: given.append(options))
    served.serve(tmp_path, log=tmp_path / "out/vllm.log", cpu=True)
    (options,) = given
    if model_type == "llava":
        assert options["arguments"] == ()
    else:
        flag, path = options["arguments"]
        assert flag == "--chat-template"
        assert (tmp_path / "out/chat_template.jinja").read_text() == thinking.chat_template
        assert path == str(tmp_path / "out/chat_template.jinja")
