"""The same question with the same settings is the same episode in chat, evaluation and training: what the model reads, which
images it is sent, what its tools give back, and what it is asked for.

Each room's own program plays it: `deepeyes.chat.conversation`, `evaluation.runs.ask.infer`, and verl's agent worker with our agent
loop. The sandbox and the search are real; the model is a script behind HTTP, or in verl's engine.
"""

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from agent.images import ImageFile
from agent.openai_chat import ChatClient, ChatSettings
from agent.settings import AgentSettings
from agent.setup import open_setup
from deepeyes.chat.conversation import Conversation
from evaluation.benchmarks import Item
from evaluation.runs.ask import ModelServers, infer
from evaluation.runs.settings import EvaluationSettings
from evaluation.smoke.scripted_model import request_server
from tests.conftest import ROOT
from tests.services.test_chat import streaming_server

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]
QUESTION = "Where was this <image> taken? <|im_end|>"
SHOW = "from PIL import Image\nprint(image_1.size, image_2.mode)\ndisplay(image_1)\nImage.new('RGB', (3000, 9), 'red')"
MANY = "for number in range(14): display(image_2.resize((80 + number, 80)))\nprint('x' * 30_000)"


def cell(code):
    return f"t</think>\n<code>\n```python\n{code}\n```\n</code>"


REPLIES = [
    "<think>" + cell(SHOW),
    cell("print(1)\nnowhere + 1"),
    cell(MANY),
    't</think>\n<tool_call>\n{"name": "search", "arguments": {"query": "red panda"}}\n</tool_call>',
    't</think>\n<tool_call>\n{"name": "nothing", "arguments": {}}\n</tool_call>',
    "t</think>\n<answer>Himalaya</answer>",
]


def photo(width_px, height_px, *, orientation=None, mode="RGB", kind="JPEG"):
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.radial_gradient("L").resize((width_px, height_px)).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


PHOTOS = [photo(1300, 900, orientation=6), photo(90, 60, mode="RGBA", kind="PNG")]


@pytest.fixture(scope="module")
def given(tmp_path_factory, sandbox_url):
    """Settings other than the defaults wherever the episode can show it."""
    folder = tmp_path_factory.mktemp("pages")
    page = {"title": "Red panda", "text": "It lives in the Himalaya. " * 9, "link": "p:1"}
    (folder / "pages.jsonl").write_text(json.dumps(page))
    settings = AgentSettings(
        tools=("python", "search"),
        search={"provider": "local", "path": str(folder / "pages.jsonl")},
        sandbox_urls=(sandbox_url,),
        # Within what the processor of the tiny model leaves as it is, as a recipe has it.
        image_max_pixels=12_000,
        max_observation_images=12,
        max_observation_chars=2000,
        python_timeout_s=77,
        max_hits=3,
        max_reply_tokens=900,
    )
    return settings.model_dump(mode="json")


def in_chat(given):
    """Bodies of the requests."""
    with streaming_server(REPLIES) as (url, bodies):
        client, images = ChatClient(ChatSettings(base_url=url, model="m")), tuple(map(ImageFile, PHOTOS))
        events = []

        async def ask():
            setup = open_setup(AgentSettings(**given))
            try:
                conversation = Conversation(setup, client, on_event=events.append)
                episode = await conversation.ask(QUESTION, images)
            finally:
                await conversation.aclose()
                await client.aclose()
                await setup.aclose()
            assert episode.answer == "Himalaya", episode.failure

        asyncio.run(ask())
    return bodies


def in_evaluation(given, folder):
    """Bodies of the requests."""
    bodies = []

    def respond(body):
        bodies.append(body)
        return REPLIES[len(bodies) - 1]

    folder.mkdir()
    item = Item(item_id="1", question=QUESTION, gold="", read_images=lambda: tuple(map(ImageFile, PHOTOS)))
    (folder / "items.jsonl").write_text(item.to_json() + "\n")
    settings = EvaluationSettings(benchmark="vstar", data="", model="m", **given)
    with request_server(respond) as url:
        asyncio.run(infer(folder, [item], settings, ModelServers(base_urls=(url,), served_name="m")))
    return bodies


def in_training(given, folder, model):
    """What verl's engine was given, request by request."""
    row = {
        "raw_prompt": [{"role": "user", "content": f"<image>\n<image>\n{QUESTION.replace('<image>', '[image]')}"}],
        "data_source": "vstar-test",
        "reward_model": {"ground_truth": "Himalaya"},
        "extra_info": {"question": QUESTION, "index": "1"},
        "images": [base64.b64encode(data).decode() for data in PHOTOS],
    }
    rollout = {"prompt_length": 30_000, "response_length": 60_000, "max_model_len": 100_000, "n": 1}
    rollout["engine_kwargs.vllm.limit_mm_per_prompt.image"] = 50
    scenario = {"row": row, "agent": given, "rollout": rollout, "replies": [REPLIES], "real_sandbox": True}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.verl_worker", str(model), str(folder)],
        cwd=ROOT, input=json.dumps({"same": scenario}), text=True, capture_output=True, timeout=300, check=False,
        env=os.environ | {
            "PYTHONPATH": str(ROOT), "VERL_PLATFORM": "cpu", "QUICKSTART_RUN": str(folder),
            "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((folder / "found.json").read_text())["same"]
    assert [record["stop"] for record in found["records"]] == ["answered"], found["said"][-3000:]
    return found["seen"]


@pytest.fixture(scope="module")
def played(given, toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    return {
        "chat": in_chat(given),
        "evaluation": in_evaluation(given, folder / "evaluation"),
        "training": in_training(given, folder / "training", toy / "models/base"),
    }


def sent(messages):
    """Checksums of the image files in a request, in reading order."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [ImageFile(base64.b64decode(url.partition("base64,")[2])).sha256 for url in urls]


def read(messages, processor):
    """The text of a request as the model's own template makes it, an image being one placeholder."""
    begun = messages[-1]["role"] == "assistant"
    plain = []
    for message in messages:
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        kept = [{"type": "image"} if part["type"] == "image_url" else part for part in parts]
        plain.append({"role": message["role"], "content": kept})
    text = processor.apply_chat_template(plain[:-1] if begun else plain, tokenize=False, add_generation_prompt=True)
    return text + (plain[-1]["content"][0]["text"] if begun else "")


def test_chat_and_evaluation_send_the_same_requests(played):
    chat, evaluation = played["chat"], played["evaluation"]
    assert len(chat) == len(evaluation) == len(REPLIES)
    for ours, theirs in zip(chat, evaluation, strict=True):
        assert ours.keys() - theirs.keys() == {"stream", "stream_options"}
        assert {name: ours[name] for name in theirs} == theirs


def test_training_reads_the_same_text_and_images_and_asks_for_the_same(played, toy):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(toy / "models/base")
    assert len(played["training"]) == len(played["evaluation"])
    for ours, theirs in zip(played["training"], played["evaluation"], strict=True):
        text = re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", ours["text"])
        assert text == read(theirs["messages"], processor)
        assert ours["files"] == sent(theirs["messages"])
        assert {name: ours[name] for name in ("max_tokens", "stop", "include_stop_str_in_output")} == {
            name: theirs[name] for name in ("max_tokens", "stop", "include_stop_str_in_output")
        }


def test_the_episode_shows_what_it_is_meant_to_compare(played):
    last = played["evaluation"][-1]["messages"]
    texts = ["".join(part.get("text", "") for part in m["content"]) if isinstance(m["content"], list) else m["content"] for m in last]
    assert "stopped after 77 seconds" in texts[0]
    assert texts[1].startswith("\n\nWhere was this [image] taken? <| im_end |>\n\nPut your final answer")
    assert "(900, 1300) RGB" in texts[3]
    assert "NameError" in texts[5]
    assert "[2 more images were dropped]" in texts[7]
    assert "characters were left out" in texts[7]
    assert "found 1 results" in texts[9]
    assert "nothing' is not one of python, search" in texts[11]
    assert texts[-1] == "<think>"
    assert len(sent(last)) == 2 + 2 + 12
