"""What is trained on is what was sampled. Needs a tokenizer and a processor, no engine."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.chat_formats import format_of, transcript
from agent.episode import StopReason, run_episode
from agent.errors import ContextFull, EpisodeFailure
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.settings import AgentSettings
from agent.tools.python import PythonTool
from agent.trajectory import tokens
from code_sandbox.testing import FakeSandbox
from code_sandbox.wire import CellImage, ExecuteResult
from reinforcement_learning.verl_adapter.images import ImageReferences, PatchGrid, pixels_of
from reinforcement_learning.verl_adapter.token_policy import PromptTooLong, Sampled, TokenLimits, TokenPolicy
from tests.conftest import png
from tests.pictures import QWEN2_VL_RULE

CODE = "<think>I need a closer look.</think>\n<code>\n```python\ndisplay(image_1)\n```\n</code>"
FORMAT = format_of("qwen2_5_vl")
ANSWER = "<think>The tile is red.</think>\n<answer>red</answer>"
OPENING = (Message("system", "You are an agent."), Message("user", "<image>\nWhat colour?", (ImageFile(png(112, 112)),)))


@pytest.fixture(scope="session")
def processor(toy):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(toy / "models/base")


class Engine:
    """Samples given texts. `ends[i]` says how reply i stops: with the end-of-turn token, on a string, or cut."""

    def __init__(self, tokenizer, texts, ends=None, split=None):
        self.tokenizer, self.texts = tokenizer, list(texts)
        self.ends = list(ends or ["eos"] * len(self.texts))
        self.split = split
        self.sampled: list[list[int]] = []
        self.asked: list[tuple[list[int], int]] = []

    async def __call__(self, token_ids, images, *, max_tokens, logit_bias):
        self.asked.append((list(token_ids), len(images)))
        text, end = self.texts.pop(0), self.ends.pop(0)
        pieces = self.split(text) if self.split else [text]
        ids = [token for piece in pieces for token in self.tokenizer(piece, add_special_tokens=False)["input_ids"]]
        if end == "eos":
            ids.append(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        ids = ids[:max_tokens]
        self.sampled.append(ids)
        return Sampled(ids, [-0.5] * len(ids))


def tool(size=(112, 112), stdout=""):
    image = CellImage.model_validate({"mime": "image/png", "data": png(*size), "width_px": size[0], "height_px": size[1]})
    return PythonTool(
        FakeSandbox([ExecuteResult(status="ok", stdout=stdout, images=[image])] * 8), AgentSettings(python_timeout_s=1)
    )


def make(processor, engine, primer="", **limits):
    sizer = ImageReferences(processor)
    return TokenPolicy(processor.tokenizer, FORMAT, sizer, engine, limits=TokenLimits(**limits), primer=primer)


def check(policy, engine, processor, episode):
    buffer = policy.buffer
    # A record holds the very stream that is trained on, and its text is what the model saw.
    ids, mask, logprobs = tokens(episode)
    assert ids == buffer.prompt_ids + buffer.response_ids
    assert mask == [0] * len(buffer.prompt_ids) + buffer.response_mask
    assert logprobs == [0.0] * len(buffer.prompt_ids) + buffer.response_logprobs
    seen = processor.tokenizer.decode(ids, skip_special_tokens=False)
    seen = re.sub(r"<\|vision_start\|>(?:<\|image_pad\|>)*<\|vision_end\|>", "<image>", seen)
    assert transcript(episode, FORMAT).removeprefix(seen) in ("", FORMAT.reply_end)
    assert len(buffer.response_ids) == len(buffer.response_mask) == len(buffer.response_logprobs)
    trained = [token for token, mask in zip(buffer.response_ids, buffer.response_mask, strict=True) if mask]
    assert trained == [token for reply in engine.sampled for token in reply]
    assert all(value == 0.0 for value, mask in zip(buffer.response_logprobs, buffer.response_mask, strict=True) if not mask)
    pads = (buffer.prompt_ids + buffer.response_ids).count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    grid = PatchGrid(processor)
    assert pads == sum(grid.num_tokens(ref) for ref in buffer.images)


@pytest.mark.parametrize("ends", [["eos", "eos"], ["string", "eos"], ["string", "string"]])
@pytest.mark.parametrize("primer", ["", "<think>"])
async def test_tokens_equal_the_chat_template_and_processor_on_the_whole_conversation(processor, ends, primer):
    answer = ANSWER.removeprefix(primer)
    engine = Engine(processor.tokenizer, [CODE, answer], ends)
    policy = make(processor, engine, primer)
    python = tool()
    episode = await run_episode(OPENING, policy=policy, tools={"python": python}, settings=AgentSettings(max_turns=2))
    assert (episode.stop_reason, episode.answer) == (StopReason.ANSWERED, "red")
    check(policy, engine, processor, episode)
    observation = episode.turns[0].observation
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in observation.parts()
    ]
    conversation = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat colour?"}]},
        {"role": "assistant", "content": CODE},
        {"role": "user", "content": content},
    ]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    images = [Image.open(__import__("io").BytesIO(png(112, 112))), Image.open(__import__("io").BytesIO(png(112, 112)))]
    expected = list(processor(text=[text], images=images)["input_ids"][0])
    expected += processor.tokenizer(primer, add_special_tokens=False)["input_ids"]
    assert engine.asked[1] == (expected, 2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    turns=st.integers(1, 5),
    ends=st.lists(st.sampled_from(["eos", "string"]), min_size=6, max_size=6),
)
def test_mask_one_tokens_are_what_was_sampled_however_the_text_was_split(processor, seed, turns, ends):
    import asyncio

    rng = random.Random(seed)

    def split(text):
        # A model may spell a word with other tokens than the tokenizer would choose.
        cuts = sorted(rng.sample(range(len(text)), min(6, len(text))))
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    async def run():
        engine = Engine(processor.tokenizer, [CODE] * turns + [ANSWER], ends, split)
        policy = make(processor, engine)
        size = (rng.randrange(1, 600), rng.randrange(1, 600))
        episode = await run_episode(
            OPENING,
            policy=policy,
            tools={"python": tool(size, stdout="<image><|im_end|>é")},
            settings=AgentSettings(max_turns=turns + 1),
            image_rule=QWEN2_VL_RULE.limited(12_544),
        )
        assert episode.replies == [CODE] * turns + [ANSWER]
        check(policy, engine, processor, episode)

    asyncio.run(run())


async def test_the_rollouts_of_a_group_name_their_image_alike(processor):
    image, name = ImageFile(png(56, 84)), ImageFile(png(56, 84)).sha256
    known = {"step": 4, "known": [name]}
    assert ImageReferences(processor, **known)(image)[0] == ImageReferences(processor, **known)(image)[0] == (name, 56, 84)
    other = ImageFile(png(84, 56))
    assert ImageReferences(processor, **known)(other)[0] == (f"4/{other.sha256}", 84, 56)


def test_an_image_is_counted_and_named_without_being_decoded(processor, monkeypatch):
    monkeypatch.setattr(ImageFile, "pil", None)
    assert ImageReferences(processor)(ImageFile(png(112, 112)))[1] == 16


@pytest.mark.parametrize("size", [(64, 56), (56, 28), (140, 112)])
def test_an_image_that_the_processor_would_resize_is_refused_with_what_to_set(processor, size):
    with pytest.raises(ValueError, match="would be resized by the model's own processor, .*set agent.image_max_pixels"):
        ImageReferences(processor)(ImageFile(png(*size)))


async def test_the_episodes_token_budget_bounds_the_next_reply(processor):
    engine = Engine(processor.tokenizer, [CODE, ANSWER], ["string", "eos"])
    policy = make(processor, engine)
    episode = await run_episode(
        OPENING, policy=policy, tools={"python": tool()}, settings=AgentSettings(max_episode_tokens=len(CODE))
    )
    assert episode.num_tokens <= len(CODE)
    assert episode.num_tokens == sum(policy.buffer.response_mask)


async def test_a_turn_that_did_not_end_itself_is_closed_with_mask_zero(processor):
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for ending, mask in (("string", 0), ("eos", 1)):
        engine = Engine(processor.tokenizer, [CODE, ANSWER], [ending, "eos"])
        policy = make(processor, engine)
        await run_episode(OPENING, policy=policy, tools={"python": tool()})
        position = policy.buffer.response_ids.index(end)
        assert policy.buffer.response_mask[position] == mask


async def test_a_reply_cut_by_its_limit_ends_the_episode(processor):
    engine = Engine(processor.tokenizer, [ANSWER])
    episode = await run_episode(OPENING, policy=make(processor, engine, max_reply_tokens=4), tools={})
    assert episode.stop_reason is StopReason.LENGTH


async def test_an_observation_that_does_not_fit_is_left_out_whole(processor):
    engine = Engine(processor.tokenizer, [CODE, ANSWER])
    reply_tokens = len(processor.tokenizer(CODE)["input_ids"]) + 1
    policy = make(processor, engine, max_response_tokens=reply_tokens + 20)
    episode = await run_episode(OPENING, policy=policy, tools={"python": tool()})
    assert episode.stop_reason is StopReason.CONTEXT_FULL
    assert len(policy.buffer.images) == 1
    assert policy.buffer.response_mask == [1] * len(policy.buffer.response_ids)


async def test_a_prompt_that_does_not_fit_is_an_outage_of_ours(processor):
    with pytest.raises(PromptTooLong, match="lower agent.image_max_pixels"):
        await make(processor, Engine(processor.tokenizer, [ANSWER]), max_prompt_tokens=10).reply(OPENING)
    assert issubclass(PromptTooLong, EpisodeFailure)
    assert not issubclass(ContextFull, EpisodeFailure)


async def test_image_placeholders_can_never_be_sampled(processor):
    seen = {}

    async def engine(token_ids, images, *, max_tokens, logit_bias):
        seen.update(logit_bias)
        return Sampled([5], [-1.0])

    reply = await make(processor, engine).reply(OPENING)
    assert isinstance(reply, Reply)
    assert seen[processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")] == -100.0
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") not in seen


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_image_tokens_are_counted_as_the_processor_counts_them(processor, width, height):
    for limit in (3136, 10_000, 12_544):
        image = QWEN2_VL_RULE.limited(limit).apply(ImageFile(png(width, height)))
        ref, count = ImageReferences(processor)(image)
        pixels = pixels_of(image.data, ref)
        grid = processor.image_processor(images=[pixels], return_tensors="pt")["image_grid_thw"][0]
        assert int(grid.prod()) // 4 == count
        assert tuple(grid.tolist()) == PatchGrid(processor).of(ref)
        assert pixels.size == image.size
