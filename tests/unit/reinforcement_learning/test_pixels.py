"""References in place of pixels change nothing that the model is given: verl's own classes, today's path beside ours."""

import asyncio
import io
from types import SimpleNamespace

import pytest
from PIL import Image

from agent.images import ImageFile
from reinforcement_learning.verl_adapter.image_store import ImageMissing, ImageRef, ImageStore, run_store
from tests.pictures import QWEN2_VL_RULE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
]  # importing verl is slow and loud

EPISODES = {
    "three images of odd sizes": [(613, 412), (200, 112), (97, 311)],
    "small and long": [(33, 32), (700, 40), (448, 448)],
    "one that fits": [(112, 112)],
    "twice the same size": [(640, 480), (640, 480)],
    "text": [],
}


@pytest.fixture(scope="module")
def verl_model(toy):
    from verl.workers.config import HFModelConfig

    return HFModelConfig(path=str(toy / "models/base"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEYES_IMAGE_STORE", str(tmp_path))
    run_store.cache_clear()
    yield run_store()
    run_store.cache_clear()


def photo(seed, width, height, kind="JPEG"):
    noise = Image.frombytes("RGB", (9, 7), bytes((seed * 37 + number * 91) % 256 for number in range(9 * 7 * 3)))
    buffer = io.BytesIO()
    noise.resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
    return ImageFile(buffer.getvalue())


def episode(model, store, sizes, limit=12_544, step=3):
    """(ids, references, decoded images) of a conversation with these images."""
    from reinforcement_learning.verl_adapter.images import ImageReferences, pixels_of

    sizer, rule = ImageReferences(model.processor, step=step), QWEN2_VL_RULE.limited(limit)
    text, refs, decoded = "hello", [], []
    for number, size in enumerate(sizes):
        image = rule.apply(photo(number, *size, kind="PNG" if number % 2 else "JPEG"))
        ref, count = sizer(image)
        refs.append(ref)
        decoded.append(pixels_of(image.data, ref))
        text += "<|vision_start|>" + "<|image_pad|>" * count + f"<|vision_end|>look {number}"
    asyncio.run(sizer.store(store))
    return model.tokenizer(text, add_special_tokens=False)["input_ids"], refs, decoded


def worker(cls, model):
    made = object.__new__(cls)
    made.processor, made.tokenizer, made.mm_processor_kwargs = model.processor, model.tokenizer, {}
    return made


@pytest.mark.parametrize("limit", [12_544, 6000])
@pytest.mark.parametrize("sizes", EPISODES.values(), ids=EPISODES)
def test_grids_positions_and_pixels_equal_those_of_verls_own_worker(verl_model, store, sizes, limit):
    import torch
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    from reinforcement_learning.verl_adapter.pixels import REFS, PixelSource, unpack_refs
    from reinforcement_learning.verl_adapter.workers import EpisodeWorker

    ids, refs, decoded = episode(verl_model, store, sizes, limit)
    ids = torch.tensor(ids)
    theirs, ours = worker(AgentLoopWorker, verl_model), worker(EpisodeWorker, verl_model)
    images = {"images": decoded} if decoded else {}
    expected = theirs._compute_multi_modal_inputs(SimpleNamespace(multi_modal_data=images, mm_processor_kwargs=None), ids)
    found = ours._compute_multi_modal_inputs(SimpleNamespace(multi_modal_data={"images": refs} if refs else {}), ids)
    mask = torch.ones_like(ids)[None]
    assert torch.equal(
        theirs._compute_position_ids(ids[None], mask, expected), ours._compute_position_ids(ids[None], mask, found)
    )
    packed = found.pop(REFS, None)
    pixels = expected.pop("pixel_values", None)
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    if refs:
        assert unpack_refs(packed) == refs
        made = PixelSource(verl_model.processor.image_processor, store).pixel_values(packed)
        assert made.dtype == pixels.dtype
        assert torch.equal(made, pixels), "bit for bit"


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_the_engine_that_verl_chooses_makes_the_pixels_of_a_micro_batch_in_order(verl_model, store, monkeypatch, engine):
    """Rows with three images, none, one, and a padding row, through verl's own prepare_model_inputs."""
    import torch
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.dataset_utils import DatasetPadMode
    from verl.workers.engine.base import EngineRegistry

    from reinforcement_learning.verl_adapter import model_plugin  # noqa: F401  registers the engines
    from reinforcement_learning.verl_adapter.pixels import MakesPixels
    from reinforcement_learning.verl_adapter.workers import EpisodeWorker

    monkeypatch.setenv("VERL_ENGINE_DEVICE", engine)
    monkeypatch.setenv("VERL_ENGINE_VENDOR", {"cpu": "cpu", "cuda": "nvidia"}[engine])
    for backend in ["fsdp2"] if engine == "cpu" else ["fsdp", "fsdp2"]:
        assert issubclass(EngineRegistry.get_engine_cls("language_model", backend), MakesPixels)
    made = object.__new__(EngineRegistry.get_engine_cls("language_model", "fsdp2"))
    made.model_config, made.pad_to_length = verl_model, None
    made.use_ulysses_sp, made.ulysses_sequence_parallel_size = False, 1
    rows, images, ids, positions = [], [], [], []
    ours = worker(EpisodeWorker, verl_model)
    for sizes in ([(613, 412), (200, 112), (97, 311)], [], [(300, 500)], None):
        if sizes is None:
            rows.append({})
            ids.append(torch.tensor([5, 6]))
            positions.append(torch.arange(2).expand(4, 2).contiguous())
            continue
        token_ids, refs, decoded = episode(verl_model, store, sizes, step=None)
        tensor = torch.tensor(token_ids)
        row = ours._compute_multi_modal_inputs(SimpleNamespace(multi_modal_data={"images": refs}), tensor)
        positions.append(ours._compute_position_ids(tensor[None], torch.ones_like(tensor)[None], row)[0])
        rows.append(row)
        ids.append(tensor)
        images += decoded
    batch = TensorDict(
        {
            "input_ids": torch.nested.as_nested_tensor(ids, layout=torch.jagged),
            "position_ids": tu.nested_tensor_from_tensor_list(positions, ragged_idx=2),
        },
        batch_size=[4],
    )
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", rows)
    options = {"use_remove_padding": False, "pad_mode": DatasetPadMode.NO_PADDING, "use_fused_kernels": False}
    tu.assign_non_tensor(batch, **options, temperature=1.0, max_response_length=4)
    made.pixel_source.prefetch(batch["multi_modal_inputs"])
    inputs, _ = made.prepare_model_inputs(micro_batch=batch)
    expected = verl_model.processor.image_processor(images=images, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    assert torch.equal(inputs["image_grid_thw"], expected["image_grid_thw"])
    assert "image_refs" not in inputs
    assert made.pixel_source.cache.num_made == 4, "prefetched ones are not made again"


def test_a_rank_keeps_no_more_pixels_than_it_may_and_prefetches_no_more_than_it_keeps(verl_model, store):
    from tensordict.tensorclass import NonTensorData

    from reinforcement_learning.verl_adapter.pixels import PixelSource, reference_inputs

    _, refs, _ = episode(verl_model, store, [(112, 112 + number) for number in range(12)])
    room = 3 * 64 * 1176 * 4
    source = PixelSource(verl_model.processor.image_processor, store, max_bytes=room)
    inputs = reference_inputs(refs, verl_model.processor)
    source.prefetch([{}, inputs, None])
    # One value for rows that are all alike would be iterated over without end.
    source.prefetch(NonTensorData({}, batch_size=[3]))
    for _ in range(2):
        source.pixel_values(inputs["image_refs"])
        assert source.cache.num_bytes <= room


def test_a_missing_file_is_told_with_its_path_not_trained_around(verl_model, store, monkeypatch):
    from reinforcement_learning.verl_adapter import image_store
    from reinforcement_learning.verl_adapter.pixels import PixelSource, pack_refs

    monkeypatch.setattr(image_store, "_FIRST_PAUSE_S", 0.001)
    source = PixelSource(verl_model.processor.image_processor, store)
    with pytest.raises(ImageMissing, match="7/ab/ab.*must be one that all nodes share"):
        source.pixel_values(pack_refs([ImageRef(f"7/{'ab' * 32}", 56, 56)]))


def test_the_rows_of_the_data_set_hold_names_whose_bytes_are_in_the_store(verl_model, toy, tmp_path, store):
    import pickle

    from omegaconf import OmegaConf

    from reinforcement_learning.verl_adapter.dataset import EpisodeDataset

    config = OmegaConf.create({"filter_overlong_prompts": False, "image_key": "images", "max_prompt_length": 8192})
    rows = EpisodeDataset([str(toy / "data/rl_train.parquet")], tokenizer=None, config=config)
    row = rows[0]
    (name,) = row["image_names"]
    data = ImageStore(store.root).get(name)
    assert ImageFile(data).size == (448, 448)
    assert data not in pickle.dumps(row)
