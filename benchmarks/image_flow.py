"""What an image costs on its way through a training step: as pixels, which is verl's way, and by reference, which is ours.

    python -m benchmarks.image_flow

Rows are those of `qwen2_5_vl_7b`: 256 prompts of 16 rollouts, an opening image, one crop of a third by a third that the
model asked for, 3 turns, 3,000 tokens of text beside the images. Rows are built by the code that builds them in training,
once verl's way and once ours, and encoded by TransferQueue's own encoder and Ray's own pickler; what is said of a step is
the measured row times 4,096. The images are smooth, so their JPEG files are small; their pixels are not.

The last table is 200 steps of 32 rows, a quarter of what one rank of 32 trains on: each is encoded, put into
TransferQueue's storage, read, decoded, its pixels made (their values are simulated, their size is not) and cleared.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
from PIL import Image

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

_PROMPTS, _ROLLOUTS, _TURNS, _RANKS = 256, 16, 3, 32
_TEXT_TOKENS = 3000
_ROWS = 32
"""A step of the simulation."""
_SIZES = {"1 MP": (1152, 864), "2 MP": (1680, 1190), "3 MP": (2048, 1536), "8.3 MP": (3840, 2160)}
# Qwen2.5-VL-7B's preprocessor_config.json.
_MIN_PIXELS, _MAX_PIXELS = 3136, 12_845_056


def _photo(seed: int, width_px: int, height_px: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (max(1, height_px // 24), max(1, width_px // 24), 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width_px, height_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of this process, what came out), the better of two."""
    best, result = float("inf"), None
    for _ in range(2):
        started = time.process_time()
        result = action()
        best = min(best, time.process_time() - started)
    return best, result


def _encoded(value: Any) -> int:
    from transfer_queue.utils import serial_utils

    return sum(len(frame) for frame in serial_utils.encode(value))


def _pickled(value: Any) -> int:
    import ray.cloudpickle as cloudpickle

    buffers: list[Any] = []
    head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(head) + sum(len(buffer.raw()) for buffer in buffers)


def _row(index: int, **images: Any) -> dict[str, Any]:
    return {
        "data_source": "perception",
        "raw_prompt": [{"role": "system", "content": "s" * 6000}, {"role": "user", "content": "<image>\n" + "q" * 200}],
        "reward_model": {"ground_truth": "red", "style": "rule"},
        "extra_info": {"index": f"p_{index}", "question": "q" * 200},
        "index": f"p_{index}",
        "uid": f"uid-{index}",
        **images,
    }


def _trajectory(row: dict[str, Any], multi_modal_inputs: dict[str, Any], num_tokens: int) -> dict[str, Any]:
    """The fields that verl's agent worker puts for one rollout."""
    import torch

    half = num_tokens // 2
    response = num_tokens - half
    return {
        **row,
        "prompts": torch.zeros(half, dtype=torch.int64),
        "responses": torch.zeros(response, dtype=torch.int64),
        "response_mask": torch.zeros(response, dtype=torch.int64),
        "loss_mask": torch.zeros(response, dtype=torch.int64),
        "input_ids": torch.zeros(num_tokens, dtype=torch.int64),
        "position_ids": torch.zeros((4, num_tokens), dtype=torch.int64),
        "rollout_log_probs": torch.zeros(response),
        "rm_scores": torch.zeros(response),
        "multi_modal_inputs": multi_modal_inputs,
    }


def _to_workers(rows: Sequence[dict[str, Any]]) -> int:
    import torch
    from verl.utils import tensordict_utils
    from verl.utils.dataset.rl_dataset import collate_fn

    batch = collate_fn([{**row, "dummy_tensor": torch.tensor([0], dtype=torch.uint8)} for row in rows])
    return sum(_pickled(chunk) for chunk in tensordict_utils.get_tensordict(batch).chunk(2))


def _measure(label: str, size: tuple[int, int], image_processor: Any, root: Path) -> dict[str, Any]:
    from agent.images import ImageFile, ImageRule
    from reinforcement_learning.verl_adapter.image_store import ImageStore
    from reinforcement_learning.verl_adapter.images import ImageReferences
    from reinforcement_learning.verl_adapter.pixels import REFS, PixelSource, reference_inputs

    width_px, height_px = size
    opening = _photo(1, *size)
    crop = ImageFile.from_pil(
        Image.open(io.BytesIO(opening)).convert("RGB").crop((0, 0, width_px // 3, height_px // 3))
    ).data
    store = ImageStore(root / label)
    processor = SimpleNamespace(image_processor=image_processor)

    rule = ImageRule.of_processor(image_processor)
    name = store.put(opening)

    def reference(data: bytes) -> Any:
        sizer = ImageReferences(processor, step=1)
        ref, _ = sizer(rule.apply(ImageFile(data)))
        asyncio.run(sizer.store(store))
        return ref

    decode_s, decoded = _timed(lambda: [ImageFile(data).pil() for data in (opening, crop)])
    process_s, made = _timed(lambda: dict(image_processor(images=decoded, return_tensors="pt")))
    made["images_seqlens"] = made["image_grid_thw"][:, 1] * made["image_grid_thw"][:, 2]
    # Once for a prompt, whose rollouts share it, and once for a rollout.
    opening_s, opening_ref = _timed(lambda: reference(opening))
    crop_s, crop_ref = _timed(lambda: reference(crop))
    refs = [opening_ref, crop_ref]
    inputs = reference_inputs(refs, processor)
    rank_s, _ = _timed(lambda: PixelSource(image_processor, store).pixel_values(inputs[REFS]))
    pickle_s, _ = _timed(lambda: _pickled(decoded))
    tokens = int(made["image_grid_thw"].prod(dim=1).sum()) // 4
    found: dict[str, Any] = {"label": label, "file": len(opening), "tokens": tokens}
    for way, key, value, images, mm_inputs in (
        ("pixels", "image_bytes", [opening], decoded, made),
        ("references", "image_names", [name], refs, inputs),
    ):
        row = _row(0, **{key: value})
        bare = _encoded(_trajectory(_row(0), {}, _TEXT_TOKENS + tokens))
        whole = _encoded(_trajectory(row, mm_inputs, _TEXT_TOKENS + tokens))
        found[way] = {
            "a token": (whole - bare) / tokens,
            "row a token": whole / tokens,
            "queue": whole * _PROMPTS * _ROLLOUTS,
            "workers": _to_workers([_row(index, **{key: value}) for index in range(4)]) / 4 * _PROMPTS,
            # The opening at every turn, the crop at all but the first.
            "vllm": (_pickled(images[:1]) * _TURNS + _pickled(images[1:]) * (_TURNS - 1)) * _PROMPTS * _ROLLOUTS,
        }
    episodes = _PROMPTS * _ROLLOUTS
    found["pixels"]["loop"] = (decode_s + process_s + _TURNS * pickle_s) * episodes
    found["references"]["loop"] = opening_s * _PROMPTS + crop_s * episodes
    found["references"]["rank"] = rank_s * episodes / _RANKS
    return found


def _print_costs(rows: Sequence[dict[str, Any]]) -> None:
    print(
        "| opening image | image tokens | | bytes an image token | whole row, the same | queue a step | driver → workers |"
    )
    print("| --- | --: | --- | --: | --: | --: | --: |")
    for row in rows:
        for way in ("pixels", "references"):
            cost = row[way]
            print(
                f"| {row['label']}, {row['file'] / 1e3:,.0f} kB | {row['tokens']:,} | {way} | {cost['a token']:,.2f} | "
                f"{cost['row a token']:,.0f} | {cost['queue'] / 1e9:,.1f} GB | {cost['workers'] / 1e6:,.1f} MB |"
            )
    print("\n| opening image | | to vLLM a step | CPU of agent workers a step | CPU of each of 32 ranks, a pass |")
    print("| --- | --- | --: | --: | --: |")
    for row in rows:
        for way in ("pixels", "references"):
            cost = row[way]
            rank = f"{cost['rank']:,.0f} s, in threads" if "rank" in cost else "0 s"
            print(f"| {row['label']} | {way} | {cost['vllm'] / 1e9:,.3f} GB | {cost['loop']:,.0f} s | {rank} |")


class _Simulated:
    """An image processor whose pixels have the right size and no values."""

    def __init__(self) -> None:
        self.patch_size, self.merge_size, self.temporal_patch_size = 14, 2, 2
        self.size = {"shortest_edge": _MIN_PIXELS, "longest_edge": _MAX_PIXELS}

    def __call__(self, images: list[Image.Image], return_tensors: str) -> dict[str, Any]:
        import torch

        patches = sum((image.width // 14) * (image.height // 14) for image in images)
        return {"pixel_values": torch.ones((patches, 1176))}


def _simulate(steps: int, root: Path) -> Iterator[tuple[int, float, int, float]]:
    """(step, resident MiB, files of rollouts, pixel cache MiB) every so often."""
    from transfer_queue.storage.simple_storage import StorageUnitData
    from transfer_queue.utils import serial_utils

    from agent.images import ImageFile
    from reinforcement_learning.verl_adapter.image_store import KEPT_STEPS, ImageStore
    from reinforcement_learning.verl_adapter.images import ImageReferences
    from reinforcement_learning.verl_adapter.pixels import REFS, PixelSource, reference_inputs

    processor: Any = SimpleNamespace(image_processor=_Simulated())
    store, queue = ImageStore(root / "run", cache_bytes=64 << 20), StorageUnitData()
    source = PixelSource(processor.image_processor, store, max_bytes=128 << 20)
    # On the grid, so that the rule leaves them as they are.
    openings = [_photo(number, 1148, 868) for number in range(8)]
    names = [store.put(data) for data in openings]
    crops = [_photo(number, 392, 280) for number in range(64)]
    for step in range(1, steps + 1):
        keys = list(range(step * _ROWS, step * _ROWS + _ROWS))
        fields = []
        for number in keys:
            opening = number // _ROLLOUTS % len(openings)
            sizer = ImageReferences(processor, step=step, known=[names[opening]])
            # A trailing comment makes each crop a file of its own.
            crop = crops[number % len(crops)] + number.to_bytes(8, "little")
            refs = [sizer(ImageFile(data))[0] for data in (openings[opening], crop)]
            store.put(crop, step=step)
            row = _trajectory(
                _row(number, image_names=[names[opening]]), reference_inputs(refs, processor), 6000
            )
            fields.append(serial_utils.decode(serial_utils.encode(row)))
        queue.put_data({name: [row[name] for row in fields] for name in fields[0]}, keys)
        del fields
        for inputs in queue.get_data(["multi_modal_inputs"], keys)["multi_modal_inputs"]:
            source.pixel_values(inputs[REFS])
        queue.clear(keys)
        store.drop_steps(before=step - KEPT_STEPS)
        if step in (1, 10, 25, 50, 100, 150, steps):
            gc.collect()
            files = sum(1 for path in (store.root / "steps").rglob("*") if path.is_file())
            resident = psutil.Process().memory_info().rss / 2**20
            yield step, resident, files, source.cache.num_bytes / 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Images of a training step: as pixels and by reference.")
    parser.add_argument("--steps", type=int, default=200, help="of the simulation")
    options = parser.parse_args(arguments)
    import torch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    torch.set_num_threads(1)
    image_processor = Qwen2VLImageProcessor(min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        rows = [_measure(label, size, image_processor, root) for label, size in _SIZES.items()]
        _print_costs(rows)
        worst = max(row["references"]["a token"] / row["pixels"]["a token"] for row in rows)
        print(f"\nreferences take at most {100 * worst:.3f} % of the bytes that pixels take\n")
        print("| step | resident MiB | files of rollouts on disk | pixels kept, MiB |")
        print("| --: | --: | --: | --: |")
        for step, resident, files, kept in _simulate(options.steps, root):
            print(f"| {step} | {resident:,.0f} | {files:,} | {kept:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
