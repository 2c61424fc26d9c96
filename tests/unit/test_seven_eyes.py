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

from agent.chat_formats import format_of
from agent.episode import run_episode
from agent.images import ImageFile, ImageRule
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.protocol import render_code_observation
from agent.settings import AgentSettings
from agent.setup import open_setup, question
from agent.tools import ToolResult
from code_sandbox.pictures import upright_rgb
from code_sandbox.server.display import QuestionImage
from cold_start.images import write_images
from reinforcement_learning.verl_adapter.image_store import ImageStore
from tests.pictures import QWEN2_VL_RULE, picture, pictures

# Imports vLLM and LLaMA-Factory.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

LIMIT = 262_144
KINDS = sorted(pictures(4, 4))
EXTREME = [(1, 1), (27, 31), (28, 28), (56, 56), (97, 311), (120, 80), (512, 512), (613, 412), (1024, 768), (1920, 1080),
           (124, 2680), (3000, 10), (10, 3000), (5600, 28), (29, 5800), (448, 588)]  # fmt: skip


def sizes(count):
    rng = random.Random(7)
    return EXTREME + [(rng.randrange(1, 900), rng.randrange(1, 900)) for _ in range(count - len(EXTREME))]


CASES = [(KINDS[number % len(KINDS)], size) for number, size in enumerate(sizes(320))]
"""320 sizes, and every kind at least eight times."""
PARTS = [("qwen2_vl", part) for part in range(8)] + [("qwen3_vl", part) for part in (0, 4)]


class Eyes:
    """Who looks at a file, and what each sees, as a Pillow image at the size of the model."""

    def __init__(self, family, root):
        from llamafactory.data.mm_plugin import get_mm_plugin
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
        from vllm.multimodal.media.connector import MediaConnector

        own = format_of(family)
        # Of both families, by the files of their models; made only once for a test of pixels.
        self.image_processor = Qwen2VLImageProcessor(
            patch_size=own.patch_px, merge_size=own.merge, min_pixels=own.min_pixels, max_pixels=own.max_pixels
        )
        self.rule = own.image_rule(LIMIT, ImageRule.of_processor(self.image_processor))
        self._plugin = get_mm_plugin(family, image_token=own.image_pad, video_token=own.video_pad)
        self._processor = SimpleNamespace(image_processor=self.image_processor)
        self._setup = open_setup(AgentSettings(tools=(), image_max_pixels=LIMIT), image_rule=self.rule)
        self._store, self._connector, self._root = ImageStore(root / "store"), MediaConnector(), root

    def shown(self, image):
        (_, asked) = self._setup.opening(question("what?", [image]))
        return asked.images[0]

    def ref(self, image):
        """What the agent loop names to vLLM and to the trainer."""
        from reinforcement_learning.verl_adapter.images import ImageReferences

        sizer = ImageReferences(self._processor, step=3)
        ref, num_tokens = sizer(self.shown(image))
        asyncio.run(sizer.store(self._store))
        assert num_tokens == ref.width_px * ref.height_px // self.rule.factor_px**2
        return ref

    def server(self, data):
        """Evaluation and chat send a data URI."""
        return self._connector.fetch_image(self.shown(ImageFile(data)).data_uri())

    def rollout(self, data):
        """verl's server hands the pixels of a named file to vLLM."""
        from vllm.multimodal.parse import MultiModalDataParser

        from reinforcement_learning.verl_adapter.images import pixels_of, row_image

        ref = self.ref(row_image(self._store, self._store.put(data)))
        image = pixels_of(self._store.get(ref.name), ref)
        return MultiModalDataParser().parse_mm_data({"image": [image]})["image"].get(0)

    def trainer(self, data):
        """`pixel_values` of a training rank."""
        from reinforcement_learning.verl_adapter.pixels import PixelSource, pack_refs

        return PixelSource(self.image_processor, self._store).pixel_values(pack_refs([self.ref(ImageFile(data))]))

    def cold_start(self, data):
        """LLaMA-Factory reads the prepared copy by its path."""
        path = self._root / "source"
        path.write_bytes(data)
        (copy,) = write_images([str(path)], self._root / "copies", self.rule).values()
        (seen,) = self._plugin._regularize_images([copy], image_max_pixels=LIMIT, image_min_pixels=32 * 32)["images"]
        return seen

    def sandbox(self, data):
        """`image_1` of both back-ends, brought to the size of the model."""
        path = self._root / "image_1"
        path.write_bytes(data)
        with path.open("rb") as file, Image.open(path) as opened:
            whole = QuestionImage(file.fileno())
            assert whole == upright_rgb(opened)
            size = self.rule.size(*whole.size)
            return whole.copy() if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_all_eyes_see_the_same_pixels_of_any_kind_and_size_and_the_processor_changes_none(family, part, tmp_path):
    import torch

    eyes = Eyes(family, tmp_path)
    for kind, size in CASES[part::8]:
        data = picture(kind, *size).data
        reference = eyes.rule.apply(ImageFile(data)).pil()
        assert reference.size == eyes.rule.size(*size)
        for eye in (eyes.server, eyes.rollout, eyes.cold_start, eyes.sandbox):
            seen = eye(data)
            assert (seen.mode, seen.size) == ("RGB", reference.size), (eye, kind, size)
            assert seen.tobytes() == reference.tobytes(), (eye, kind, size)
        untouched = eyes.image_processor(images=[reference], do_resize=False, return_tensors="pt")
        again = eyes.image_processor(images=[reference], return_tensors="pt")
        for found in (eyes.trainer(data), again["pixel_values"]):
            assert torch.equal(found, untouched["pixel_values"]), (kind, size)
        assert torch.equal(again["image_grid_thw"], untouched["image_grid_thw"])


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
    image_max_pixels,
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
