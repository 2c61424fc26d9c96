"""One image, seven eyes: the server of a model, the rollout's engine, the trainer, the cold start, evaluation, chat, the sandbox.

Each is asked through the code that decodes images there: vLLM's own loader and parser, LLaMA-Factory's plugin, the processor
of transformers. Pixels are compared bit by bit.
"""

import asyncio
import json
import random
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from agent.episode import run_episode
from agent.images import QWEN2_VL_RULE, ImageFile
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.protocol import render_code_observation
from agent.settings import AgentSettings
from agent.setup import open_setup, question
from agent.tools import ToolResult
from code_sandbox.pictures import upright_rgb
from code_sandbox.server.display import QuestionImage
from cold_start.images import write_images
from reinforcement_learning.verl_adapter.image_store import ImageStore
from tests.pictures import picture, pictures

# Imports vLLM and LLaMA-Factory.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

LIMIT = 262_144
RULE = QWEN2_VL_RULE.limited(LIMIT)
KINDS = sorted(pictures(4, 4))
EXTREME = [(1, 1), (27, 31), (28, 28), (56, 56), (97, 311), (120, 80), (512, 512), (613, 412), (1024, 768), (1920, 1080),
           (124, 2680), (3000, 10), (10, 3000), (5600, 28), (29, 5800), (448, 588)]  # fmt: skip


def sizes(count):
    rng = random.Random(7)
    return EXTREME + [(rng.randrange(1, 900), rng.randrange(1, 900)) for _ in range(count - len(EXTREME))]


CASES = [(kind, size) for number, size in enumerate(sizes(320)) for kind in [KINDS[number % len(KINDS)]]]
"""320 sizes, and every kind at least six times."""


@pytest.fixture(scope="module")
def image_processor():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory, image_processor):
    """Who looks -> what is seen of a file, as a Pillow image at the size of the model."""
    from llamafactory.data.mm_plugin import get_mm_plugin
    from vllm.multimodal.media.connector import MediaConnector
    from vllm.multimodal.parse import MultiModalDataParser

    from reinforcement_learning.verl_adapter.images import QwenImageSizer, pixels_of, row_image

    root = tmp_path_factory.mktemp("eyes")
    store, connector = ImageStore(root / "store"), MediaConnector()
    plugin = get_mm_plugin("qwen2_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    setup = open_setup(AgentSettings(tools=(), image_max_pixels=LIMIT))

    processor = SimpleNamespace(image_processor=image_processor)

    def shown(image):
        (_, asked) = setup.opening(question("what?", [image]))
        return asked.images[0]

    def server(data):
        """Evaluation and chat send a data URI."""
        return connector.fetch_image(shown(ImageFile(data)).data_uri())

    def rollout(data):
        """The agent loop names a file, and verl's server hands its pixels to vLLM."""
        sizer = QwenImageSizer(processor, step=3)
        ref, num_tokens = sizer(shown(row_image(store, store.put(data))))
        asyncio.run(sizer.store(store))
        image = pixels_of(store.get(ref.name), ref)
        seen = MultiModalDataParser().parse_mm_data({"image": [image]})["image"].get(0)
        assert num_tokens == seen.width * seen.height // 28**2
        return seen

    def cold_start(data):
        """LLaMA-Factory reads the prepared copy by its path."""
        path = root / "source"
        path.write_bytes(data)
        (copy,) = write_images([str(path)], root / "copies", RULE).values()
        (seen,) = plugin._regularize_images([copy], image_max_pixels=LIMIT, image_min_pixels=32 * 32)["images"]
        return seen

    def sandbox(data):
        """`image_1` of `fork`, at the size of the model."""
        path = root / "image_1"
        path.write_bytes(data)
        with path.open("rb") as file, Image.open(path) as opened:
            whole = QuestionImage(file.fileno())
            assert whole == upright_rgb(opened), "image_1 of the jupyter back-end"
            size = RULE.size(*whole.size)
            return whole.copy() if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC)

    return {"server": server, "rollout": rollout, "cold start": cold_start, "sandbox": sandbox}


@pytest.mark.parametrize("part", range(8))
def test_all_eyes_see_the_same_pixels_of_any_kind_and_size_and_the_processor_changes_none(
    eyes, image_processor, part, tmp_path
):
    import torch

    from reinforcement_learning.verl_adapter.images import QwenImageSizer
    from reinforcement_learning.verl_adapter.pixels import PixelSource, pack_refs

    processor = SimpleNamespace(image_processor=image_processor)
    source = PixelSource(image_processor, ImageStore(tmp_path))
    for kind, size in CASES[part::8]:
        data = picture(kind, *size).data
        reference = RULE.apply(ImageFile(data)).pil()
        assert reference.size == RULE.size(*size)
        for name, eye in eyes.items():
            seen = eye(data)
            assert (seen.mode, seen.size) == ("RGB", reference.size), (name, kind, size)
            assert seen.tobytes() == reference.tobytes(), (name, kind, size)
        # What the trainer makes of it, beside a processor that is told to resize nothing.
        sizer = QwenImageSizer(processor, step=1)
        ref, _ = sizer(RULE.apply(ImageFile(data)))
        asyncio.run(sizer.store(source._store))
        untouched = image_processor(images=[reference], do_resize=False, return_tensors="pt")
        assert torch.equal(source.pixel_values(pack_refs([ref])), untouched["pixel_values"]), (kind, size)
        resized = image_processor(images=[reference], return_tensors="pt")
        assert torch.equal(resized["pixel_values"], untouched["pixel_values"])
        assert torch.equal(resized["image_grid_thw"], untouched["image_grid_thw"])


class Shows:
    """A tool that shows a file as it is."""

    def __init__(self, data):
        self._data = data

    async def run(self, arguments):
        return ToolResult(render_code_observation(stdout="", stderr="", images=[ImageFile(self._data)]))

    async def close(self):
        pass


@pytest.mark.parametrize("image_max_pixels", [LIMIT, None])
async def test_what_is_sent_to_a_server_is_the_rules_with_and_without_a_limit_and_so_is_what_tools_show(
    eyes, image_max_pixels
):
    """Through the policy of evaluation and chat, to the body of the request, and out of it by vLLM's loader."""
    from vllm.multimodal.media.connector import MediaConnector

    bodies, replies = [], ["<code>\n```python\n1\n```\n</code>", "<answer>x</answer>"]

    def answer(request):
        bodies.append(request.read())
        message = {"choices": [{"message": {"content": replies[len(bodies) - 1]}, "finish_reason": "stop"}]}
        return httpx.Response(200, json=message)

    rule = QWEN2_VL_RULE.limited(image_max_pixels)
    for kind in ("jpeg turned 6", "alpha", "16 bit", "palette with one transparent", "cmyk jpeg", "png"):
        bodies.clear()
        asked, shown = picture(kind, 613, 412).data, picture(kind, 1210, 30).data
        setup = open_setup(AgentSettings(tools=(), prompt=None, image_max_pixels=image_max_pixels))
        client = ChatClient(ChatSettings(base_url="http://model/v1", model="m"), transport=httpx.MockTransport(answer))
        episode = await run_episode(
            setup.opening(question("what?", [ImageFile(asked)])),
            policy=ChatPolicy(client, max_reply_tokens=None, primer=""),
            tools={"python": Shows(shown)},
            settings=setup.settings,
            image_rule=setup.image_rule,
        )
        assert episode.answer == "x"
        parts = [part for message in json.loads(bodies[-1])["messages"] for part in message["content"]]
        uris = [part["image_url"]["url"] for part in parts if isinstance(part, dict) and part["type"] == "image_url"]
        for uri, data in zip(uris, (asked, shown), strict=True):
            seen = MediaConnector().fetch_image(uri)
            expected = rule.apply(ImageFile(data)).pil()
            assert (seen.size, seen.tobytes()) == (expected.size, expected.tobytes()), kind
