"""verl's own vLLM server with references to images: what reaches the engine, and how often an image is decoded."""

import asyncio
from types import SimpleNamespace

import pytest

from agent.errors import EpisodeFailure
from agent.images import ImageFile
from reinforcement_learning.verl_adapter import image_store
from reinforcement_learning.verl_adapter.image_store import ImageRef, run_store
from tests.conftest import png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # imports vLLM


@pytest.fixture(scope="module")
def vllm_server():
    from reinforcement_learning.verl_adapter import vllm_server

    return vllm_server


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEYES_IMAGE_STORE", str(tmp_path))
    monkeypatch.setattr(image_store, "_FIRST_PAUSE_S", 0.001)
    run_store.cache_clear()
    yield run_store()
    run_store.cache_clear()


class Engine:
    """Takes a prompt, says one token."""

    def __init__(self):
        self.prompts = []

    async def generate(self, *, prompt, sampling_params, request_id, lora_request, priority):
        self.prompts.append(prompt)
        await asyncio.sleep(0)
        reply = SimpleNamespace(token_ids=[7], logprobs=None, finish_reason="stop")
        yield SimpleNamespace(outputs=[reply], num_cached_tokens=0, prompt_logprobs=None, metrics=None)


class Config(SimpleNamespace):
    def get(self, name, default=None):
        return getattr(self, name, default)


def server(vllm_server):
    """An EpisodeServer whose engine is not started: verl's own `generate` runs."""
    made = object.__new__(vllm_server.EpisodeServer)
    made._disaggregation_role, made._pd_decode_peers = "null", []
    made._submission_paused, made._admitting, made.replica_rank, made.global_steps = False, 0, 0, 1
    made.config = Config(
        max_model_len=100, response_length=10, prompt_length=90, full_determinism=False, mtp=None,
        enable_rollout_routing_replay=False,
    )  # fmt: skip
    made.model_config = SimpleNamespace(processor=None, lora_rank=0, lora={})
    made._pixels = vllm_server.BackgroundCache(vllm_server._decoded, lambda image: 1, max_bytes=1000, threads=4)
    made.engine = vllm_server._NamingEngine(Engine())
    return made


def ask(made, images):
    return made.generate(prompt_ids=[1, 2], sampling_params={"max_tokens": 3}, request_id="r", image_data=images)


def test_sixteen_rollouts_and_their_turns_decode_an_image_once_and_name_it_to_vllm(vllm_server, store, monkeypatch):
    decoded = []
    pil = ImageFile.pil
    monkeypatch.setattr(ImageFile, "pil", lambda image: decoded.append(image.sha256) or pil(image))
    opening = ImageRef(store.put(png(200, 100)), 200, 100)
    crops = [ImageRef(store.put(png(60, 60 + number), step=2), 60, 60 + number) for number in range(16)]
    made = server(vllm_server)

    async def rollouts():
        for _ in range(3):
            await asyncio.gather(*(ask(made, [opening, crop]) for crop in crops))

    asyncio.run(rollouts())
    assert len(decoded) == len(set(decoded)) == 17
    assert len(made.engine.prompts) == 48
    for prompt in made.engine.prompts:
        first, second = prompt["multi_modal_data"]["image"]
        assert (first.size, second.width) == ((200, 100), 60)
        assert prompt["multi_modal_uuids"] == {
            "image": [opening.key, next(crop.key for crop in crops if crop.height_px == second.height)]
        }


def test_vllm_takes_the_names_as_they_are_and_hashes_no_pixels(vllm_server, store, monkeypatch):
    from vllm.multimodal.hasher import MultiModalHasher
    from vllm.multimodal.parse import MultiModalDataParser, parse_mm_uuids
    from vllm.multimodal.processing.inputs import ProcessorInputs

    made = server(vllm_server)
    ref = ImageRef(store.put(png(56, 56)), 56, 56)
    asyncio.run(ask(made, [ref]))
    (prompt,) = made.engine.prompts
    items = MultiModalDataParser().parse_mm_data(prompt["multi_modal_data"])
    monkeypatch.setattr(MultiModalHasher, "hash_kwargs", None)
    inputs = ProcessorInputs([1], items, parse_mm_uuids(prompt["multi_modal_uuids"]))
    assert inputs.get_mm_hashes("model", "blake3") == {"image": [ref.key]}
    assert items["image"].get(0).size == (56, 56)


def test_text_and_images_of_others_pass_as_they_are(vllm_server, store):
    made = server(vllm_server)
    picture = ImageFile(png()).pil()
    asyncio.run(ask(made, None))
    asyncio.run(ask(made, [picture]))
    text, other = made.engine.prompts
    assert not text["multi_modal_data"]
    assert other["multi_modal_data"]["image"] == [picture]
    assert all("multi_modal_uuids" not in prompt for prompt in made.engine.prompts)


@pytest.mark.parametrize("data", [None, png(64, 64)[:-40], png(64, 65)], ids=["missing", "broken", "of another size"])
def test_an_image_that_cannot_be_had_is_our_outage_and_asks_nothing_of_the_engine(vllm_server, store, data):
    made = server(vllm_server)
    name = "3/" + "ab" * 32 if data is None else store.put(data, step=3)
    with pytest.raises(EpisodeFailure, match=r"3/[0-9a-f]"):
        asyncio.run(ask(made, [ImageRef(name, 64, 64)]))
    assert made.engine.prompts == []


def test_the_processors_cache_is_on_unless_the_recipe_says_otherwise(vllm_server, store):
    made = server(vllm_server)
    made.config.checkpoint_engine = None
    for given, expected in (({}, 4), ({"mm_processor_cache_gb": 0}, 0)):
        made._preprocess_engine_kwargs(given)
        assert given["mm_processor_cache_gb"] == expected


def test_verl_starts_our_server_where_it_asks_for_vllm(vllm_server):
    from verl.workers.rollout.replica import RolloutReplicaRegistry, get_rollout_replica_class

    theirs = RolloutReplicaRegistry._registry["vllm"]
    try:
        vllm_server.register()
        assert get_rollout_replica_class("vllm") is vllm_server.EpisodeReplica
    finally:
        RolloutReplicaRegistry.register("vllm", theirs)
