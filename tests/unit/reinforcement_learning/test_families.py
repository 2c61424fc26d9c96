"""An episode of several turns and images is, for each family, what Hugging Face's own processor and model make of it."""

import asyncio
import io
from types import SimpleNamespace

import pytest
from PIL import Image

from agent.chat_formats import format_of_folder
from agent.episode import run_episode
from agent.images import ImageFile, ImageRule
from agent.messages import Message
from agent.settings import AgentSettings
from agent.tools.python import PythonTool
from code_sandbox.testing import FakeSandbox
from code_sandbox.wire import CellImage, ExecuteResult
from deepeyes.quickstart.bases import BASES
from reinforcement_learning.verl_adapter.image_store import run_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

SIZES = [(613, 412), (200, 112), (97, 311)]
CODE = "<think>I look closer.</think>\n<code>\n```python\ndisplay(image_1)\n```\n</code>"
ANSWER = "<think>It is red.</think>\n<answer>red</answer>"


def noise(number):
    width, height = SIZES[number]
    pixels = Image.frombytes("RGB", (9, 7), bytes((number * 37 + at * 91) % 256 for at in range(9 * 7 * 3)))
    buffer = io.BytesIO()
    pixels.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEYES_IMAGE_STORE", str(tmp_path))
    run_store.cache_clear()
    yield run_store()
    run_store.cache_clear()


def played(model, folder, store):
    """(ids, references of the images) of a rollout of three turns, of which the first two ended on a stop string."""
    from reinforcement_learning.verl_adapter.images import ImageReferences
    from reinforcement_learning.verl_adapter.token_policy import Sampled, TokenLimits, TokenPolicy

    tokenizer, sizer = model.tokenizer, ImageReferences(model.processor, step=3)
    replies = iter([CODE, CODE, ANSWER])

    async def engine(token_ids, images, *, max_tokens, logit_bias):
        ids = tokenizer(next(replies), add_special_tokens=False)["input_ids"]
        return Sampled(ids, [-0.5] * len(ids))

    def shown(number):
        width, height = SIZES[number]
        content = {"mime": "image/png", "data": noise(number), "width_px": width, "height_px": height}
        return ExecuteResult(status="ok", stdout=f"crop {number}", images=[CellImage.model_validate(content)])

    python = PythonTool(FakeSandbox([shown(1), shown(2)]), AgentSettings(), images=())
    rule = format_of_folder(folder).image_rule(None, ImageRule.of_processor(model.processor.image_processor))
    question = Message("user", "<image>\nWhat colour?", (rule.apply(ImageFile(noise(0))),))
    opening = (Message("system", "You are an agent."), question)
    policy = TokenPolicy(tokenizer, format_of_folder(folder), sizer, engine, limits=TokenLimits())

    async def play():
        episode = await run_episode(
            opening, policy=policy, tools={"python": python}, settings=AgentSettings(max_turns=3), image_rule=rule
        )
        await sizer.store(store)
        return episode

    episode = asyncio.run(play())
    assert episode.answer == "red"
    buffer = policy.buffer
    return episode, buffer.prompt_ids + buffer.response_ids, buffer.images


def by_hugging_face(model, episode):
    """What the model's own processor makes of the conversation, with its own chat template."""

    def content(message):
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts()]

    conversation = [{"role": message.role, "content": content(message)} for message in episode.opening]
    images = [image.pil() for message in episode.opening for image in message.images]
    for turn in episode.turns:
        conversation.append({"role": "assistant", "content": [{"type": "text", "text": turn.reply.text}]})
        if turn.observation is not None:
            conversation.append({"role": "user", "content": content(turn.observation)})
            images += [image.pil() for image in turn.observation.images]
    assert len({image.size for image in images}) == len(images) == 3
    text = model.processor.apply_chat_template(conversation, tokenize=False)
    return model.processor(text=[text], images=images, return_tensors="pt")


@pytest.mark.parametrize("base", sorted(BASES))
def test_ids_grids_positions_and_pixels_of_three_images_equal_hugging_faces(base, tiny, store):
    import torch
    from transformers import AutoModelForImageTextToText
    from verl.workers.config import HFModelConfig

    from reinforcement_learning.verl_adapter.pixels import REFS, PixelSource
    from reinforcement_learning.verl_adapter.workers import EpisodeWorker

    folder = tiny(base)
    model = HFModelConfig(path=str(folder))
    episode, ids, refs = played(model, folder, store)
    expected = by_hugging_face(model, episode)
    # The template closes the last reply; the rollout ends where the model did.
    closing = model.tokenizer(format_of_folder(folder).reply_end + "\n", add_special_tokens=False)["input_ids"]
    assert ids + closing == expected["input_ids"][0].tolist()

    ours = object.__new__(EpisodeWorker)
    ours.processor, ours.tokenizer, ours.mm_processor_kwargs = model.processor, model.tokenizer, {}
    tensor = torch.tensor(ids)
    found = ours._compute_multi_modal_inputs(SimpleNamespace(multi_modal_data={"images": refs}), tensor)
    positions = ours._compute_position_ids(tensor[None], torch.ones_like(tensor)[None], found)[0]
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert len({tuple(grid) for grid in found["image_grid_thw"].tolist()}) == 3, "the images are of three shapes"
    made = PixelSource(model.processor.image_processor, store).pixel_values(found[REFS])
    assert torch.equal(made, expected["pixel_values"]), "bit for bit"

    types = expected["mm_token_type_ids"][:, : len(ids)]
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    theirs, _ = plain.model.get_rope_index(tensor[None], types, expected["image_grid_thw"])
    assert torch.equal(positions[1:], theirs[:, 0])
    assert torch.equal(positions[0], torch.arange(len(ids)))
    assert positions[1:].max() < len(ids) - 1, "an image takes fewer positions than tokens"


def test_a_thinking_models_replies_begin_in_an_opened_thought(tiny):
    from transformers import AutoTokenizer

    from agent.chat_formats import format_of_template, transcript
    from reinforcement_learning.verl_adapter.token_policy import Sampled, TokenLimits, TokenPolicy

    tokenizer, talk = AutoTokenizer.from_pretrained(tiny("qwen3_vl")), format_of_template("qwen3_vl")
    replies = iter([CODE.removeprefix("<think>"), ANSWER.removeprefix("<think>")])

    async def engine(token_ids, images, *, max_tokens, logit_bias):
        assert tokenizer.decode(token_ids).endswith("<|im_start|>assistant\n<think>\n")
        ids = tokenizer(next(replies), add_special_tokens=False)["input_ids"]
        return Sampled(ids, [-0.5] * len(ids))

    python = PythonTool(FakeSandbox([ExecuteResult(status="ok", stdout="done")]), AgentSettings(), images=())
    # A recipe's own primer gives way: the thought is open already.
    policy = TokenPolicy(tokenizer, talk, None, engine, limits=TokenLimits(), primer="<think>")
    opening = (Message("user", "What colour?"),)
    episode = asyncio.run(run_episode(opening, policy=policy, tools={"python": python}, settings=AgentSettings(max_turns=2)))
    assert episode.answer == "red"
    assert [turn.reply.primer for turn in episode.turns] == ["<think>\n", "<think>\n"]
    seen = tokenizer.decode(policy.buffer.prompt_ids + policy.buffer.response_ids)
    assert transcript(episode, talk) == seen + talk.reply_end
