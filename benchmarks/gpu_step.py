"""What a GPU needs for a training step of a recipe, and how fast it is, against `deepeyes plan`; without weights and data.

    python -m benchmarks.gpu_step qwen2_5_vl_7b_1x8                             one of its 8 GPUs
    python -m benchmarks.gpu_step qwen2_5_vl_7b --overlay _no_flash_attn        KEY=VALUE overrides as everywhere
    python -m benchmarks.gpu_step qwen2_5_vl_7b --tiny                          the same code on a CPU, with the tiny model

One GPU is enough. verl's own engine is built from the recipe, with random weights of the published shape, and given random
rows; half of their tokens are of images of up to `agent.image_max_pixels`. Where a recipe has several GPUs, this process is
one of them in a process group without the others (torch's "fake"): gathering repeats its own shard, scattering keeps its own
part. Memory and arithmetic are a real rank's. What is not there: the time data takes between GPUs, NCCL's buffers, vLLM.
What the model computes means nothing. Measured are

    update    two micro-batches of mean episodes that fill the token budget, and the optimizer's step
    longest   the same with two episodes of the longest kind
    log_prob  the pass before training, without gradients, at its own budget

each twice, of which the second counts. What it took is printed beside what the plan says; `--out` has all of it as lines of
JSON, memory in bytes.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import memory_peak
from benchmarks.lone_rank import Card, Rank, process_group
from reinforcement_learning.model_shape import ModelShape, shape_of
from reinforcement_learning.plan import Plan, make_plan
from reinforcement_learning.plan_values import GIB, Assumptions, VerlValues, image_tokens
from reinforcement_learning.recipe import Recipe, load_recipe

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
_TINY = (
    "verl.data.max_prompt_length=64", "verl.data.max_response_length=64", "agent.image_max_pixels=12544",
    f"verl.{_ACTOR}.ppo_max_token_len_per_gpu=128", f"verl.{_ROLLOUT}.log_prob_max_token_len_per_gpu=256",
)  # fmt: skip
_PRECISION_KEY = f"{_ACTOR}.fsdp_config.mixed_precision"
BATCHES = ("update", "longest", "log_prob")
_CROP_ROWS = 16
"""Image tokens one above the other in the image that fills up what whole images leave."""


def published_config(shape: ModelShape, tiny: Any) -> Any:
    """The configuration of a published Qwen2.5-VL, with the tokens of the tiny model's tokenizer.

    Args:
        shape: Its sizes. What is not in there is the same for 3B, 7B and 32B (config.json of Qwen/Qwen2.5-VL-7B-Instruct).
        tiny: The tiny model's configuration.
    """
    from transformers import Qwen2_5_VLConfig

    text, vision = shape.text, shape.vision
    return Qwen2_5_VLConfig(
        architectures=tiny.architectures,
        text_config={
            "vocab_size": text.vocabulary,
            "hidden_size": text.hidden,
            "intermediate_size": text.intermediate,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": text.tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.intermediate,
            "num_heads": 16,
            "out_hidden_size": text.hidden,
            "patch_size": vision.patch_px,
            "spatial_merge_size": vision.merge,
            "temporal_patch_size": vision.temporal_patch,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
        vision_start_token_id=tiny.vision_start_token_id,
        vision_end_token_id=tiny.vision_end_token_id,
        tie_word_embeddings=text.tied,
    )


def write_model(directory: Path, shape: ModelShape, *, tiny: bool) -> None:
    """A model folder without weights: the tiny model's tokenizer and processor, and a configuration.

    Args:
        directory: Where.
        shape: Of the published model.
        tiny: The tiny model's own shape instead, with embeddings tied as the published model has them.
    """
    from transformers import AutoConfig

    from deepeyes.quickstart.tiny_model import make_tiny_model

    make_tiny_model(["a b c"], directory, tied=shape.text.tied)
    (directory / "model.safetensors").unlink()
    if not tiny:
        published_config(shape, AutoConfig.from_pretrained(directory)).save_pretrained(directory)


def image_grids(tokens: int, *, largest_tokens: int) -> list[tuple[int, int]]:
    """Images that together are about so many tokens: as many of the largest as fit, and a smaller one.

    Returns:
        (rows, columns) in tokens of each image; together between `tokens` less one row of the last and `tokens`.
    """
    rows = max(row for row in range(1, int(largest_tokens**0.5) + 1) if largest_tokens % row == 0)
    grids = [(rows, largest_tokens // rows)] * (tokens // largest_tokens)
    rest = tokens - len(grids) * largest_tokens
    crop_rows = min(_CROP_ROWS, max(1, int(rest**0.5)))
    return grids + ([(crop_rows, rest // crop_rows)] if rest else [])


def make_rows(lengths: Sequence[int], config: Any, *, largest_image: int, prompt_frac: float) -> Any:
    """A batch as verl hands it to a training rank: prompt, response, and what the loss reads.

    Args:
        lengths: Tokens of each row.
        config: Of the model.
        largest_image: Tokens of the largest image. Half of a row's tokens are of images.
        prompt_frac: Share of a row that is its prompt.

    Returns:
        A TensorDict of nested tensors, [num_rows, tokens of the row] each.
    """
    import torch
    from tensordict import NonTensorStack, TensorDict
    from verl.utils import tensordict_utils as tu

    nested = functools.partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    vision = config.vision_config
    merge, width = vision.spatial_merge_size, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    ids, images, sizes = [], [], []
    for length in lengths:
        row = torch.randint(config.text_config.vocab_size, (length,))
        row[(row == config.image_token_id) | (row == config.video_token_id)] = 0
        grids = image_grids(length // 2, largest_tokens=largest_image)
        row[1 : 1 + sum(a * b for a, b in grids)] = config.image_token_id
        grid = torch.tensor([[1, a * merge, b * merge] for a, b in grids])
        images.append({"pixel_values": torch.randn(int(grid.prod(1).sum()), width), "image_grid_thw": grid})
        ids.append(row)
        sizes.append(max(1, int(length * prompt_frac)))
    positions = [torch.arange(len(row)).expand(4, -1).contiguous() for row in ids]
    responses = [row[size:] for row, size in zip(ids, sizes, strict=True)]
    mask = nested([torch.ones_like(row) for row in responses])
    # About what random weights say; far from it, clipping would leave no gradient at all.
    even = -math.log(config.text_config.vocab_size)
    data = TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": tu.nested_tensor_from_tensor_list(positions, ragged_idx=2),
            "prompts": nested([row[:size] for row, size in zip(ids, sizes, strict=True)]),
            "responses": nested(responses),
            "response_mask": mask,
            "loss_mask": mask.clone(),
            "old_log_probs": nested([torch.full((len(row),), even) for row in responses]),
            "advantages": nested([torch.randn(len(row)) for row in responses]),
        },
        batch_size=[len(ids)],
    )
    data["multi_modal_inputs"] = NonTensorStack(*images)
    return data


def batches(plan: Plan, values: VerlValues, *, tiny: bool) -> dict[str, list[int]]:
    """Lengths of the rows of each batch that is measured.

    Args:
        plan: Of the recipe.
        values: Of the recipe.
        tiny: Shorter than a mean episode is all there is room for.
    """
    dynamic = values(f"{_ACTOR}.use_dynamic_bsz")
    mean = min(plan.episode_tokens, plan.longest_tokens // 2) if tiny else plan.episode_tokens

    def filled(budget: int, micro_batches: int) -> list[int]:
        rows = max(1, round(budget / mean))
        return [budget // rows] * rows * micro_batches

    if not dynamic:
        # A micro-batch is so many rows, whatever their length.
        rows = int(values(f"{_ACTOR}.ppo_micro_batch_size_per_gpu"))
        longest = [plan.longest_tokens] * rows
        return {"update": [mean] * 2 * rows, "longest": longest * 2, "log_prob": longest}
    return {
        "update": filled(plan.token_budget, 2),
        "longest": [plan.longest_tokens] * 2,
        "log_prob": filled(int(values(f"{_ROLLOUT}.log_prob_max_token_len_per_gpu")), 1),
    }


def _planned(what: str, plan: Plan) -> dict[str, int]:
    assert plan.gpu is not None
    gpu = plan.gpu
    parts = {"weights": gpu.weights, "gradients": gpu.gradients, "optimizer": gpu.optimizer}
    if what == "log_prob":
        return parts
    return parts | {"activations": gpu.activations, "gathered": gpu.gathered, "training": gpu.training}


def as_text(result: dict[str, Any]) -> str:
    """A result as a line for people; the second time of each batch, which is the one that counts."""
    if "recipe" in result:
        return f"{result['recipe']} as one of {result['gpus']} GPUs, states over {result['shards']}"
    if "at_peak" in result:
        places = "".join(f"\n  {size / GIB:7.2f}  {place}" for place, size in result["at_peak"].items() if size >= 1 << 24)
        return f"{result['what']:<9} when memory was fullest, GiB:{places}"
    if "failed" in result:
        return f"{result['what']:<9} {result['tokens']:,} tokens: {result['failed']}"
    if "tokens_a_s" not in result:
        return f"{result['what']:<9} " + ", ".join(f"{key} {value}" for key, value in result.items() if key != "what")
    text = f"{result['what']:<9} {result['tokens']:>7,} tokens, {result['rows']} episodes: {result['seconds']:.2f} s, "
    text += f"{result['tokens_a_s']:,} tokens/s; {result['passes'] / GIB:.2f} GiB"
    if "training" in result["planned"]:
        text += f" (plan: {result['planned']['training'] / GIB:.2f}), {result['step'] / GIB:.2f} in the optimizer's step"
    return text + f"; torch holds {result['reserved'] / GIB:.2f}, beside it {result['outside_torch'] / GIB:.2f}"


def measure(
    recipe: Recipe, plan: Plan, report: Callable[[dict[str, Any]], None], *, only: Sequence[str], tiny: bool, explain: bool
) -> None:
    """Build the rank and do each batch twice; the first time compiles, and makes the optimizer's states.

    Args:
        recipe: With `run.model` a folder of `write_model`.
        plan: What it is held against.
        report: Takes each result.
        only: Names of batches.
        tiny: The tiny model, whose episodes are short.
        explain: Do the first batch once more and say what the fullest memory was made of.
    """
    import torch

    card, values = Card(), VerlValues(recipe)
    began = card.begin()
    rank = Rank(recipe)
    report({"what": "built", "seconds": round(card.end()[0] - began, 1), "weights": card.allocated(), **card.facts()})
    prompt_frac = values("data.max_prompt_length") / plan.longest_tokens
    draw = functools.partial(make_rows, config=rank.config, largest_image=largest_image(recipe), prompt_frac=prompt_frac)
    chosen = {what: lengths for what, lengths in batches(plan, values, tiny=tiny).items() if what in only}
    for what, lengths in chosen.items():
        work = rank.log_probs if what == "log_prob" else rank.update
        facts = {"what": what, "rows": len(lengths), "tokens": sum(lengths), "planned": _planned(what, plan)}
        try:
            for number in (1, 2):
                found = work(draw(lengths), card)
                found.pop("log_probs", None)
                speed = {"tokens_a_s": round(sum(lengths) / found["seconds"]), "outside_torch": card.outside_torch()}
                report(facts | {"time": number, "reserved": card.reserved()} | found | speed)
        except torch.OutOfMemoryError as error:
            report(facts | {"failed": str(error).splitlines()[0]})
        card.empty()
    if explain:
        rows = draw(chosen["update"])
        report({"what": "update", "at_peak": memory_peak.record(lambda: rank.update(rows, card))})


def compare_precision(recipe: Recipe, lengths: Sequence[int], report: Callable[[dict[str, Any]], None]) -> None:
    """Log-probabilities as the recipe computes them, and in float32 from the same weights.

    Args:
        recipe: With `run.model` a folder of `write_model`; on one GPU, since without the others the weights are no model.
        lengths: Tokens of the rows.
        report: Takes the result.
    """
    import torch

    found = []
    exact = {_PRECISION_KEY: dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")}
    for extra in ({}, exact):
        torch.manual_seed(0)
        rank = Rank(recipe.model_copy(update={"verl_extra": recipe.verl_extra | extra}))
        torch.manual_seed(1)
        rows = make_rows(lengths, rank.config, largest_image=largest_image(recipe), prompt_frac=0.5)
        found.append(rank.log_probs(rows, Card())["log_probs"].values().float().cpu())
        del rank
        Card().empty()
    rounded, precise = found
    apart = (rounded - precise).abs()
    numbers = {"mean": apart.mean(), "largest": apart.max(), "log_prob_mean": precise.mean(), "log_prob_sd": precise.std()}
    report({"what": "precision", "tokens": len(apart)} | {name: round(value.item(), 5) for name, value in numbers.items()})


def largest_image(recipe: Recipe) -> int:
    """Tokens of the largest image, without the two that enclose it."""
    factor_px = shape_of(recipe.run.model).factor_px
    return image_tokens(recipe.agent.image_max_pixels or Assumptions().image_px, factor_px) - 2


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--overlay", action="append", default=[])
    parser.add_argument("--gpus", type=int, help="of the pretended machines; the recipe's unless given")
    parser.add_argument("--only", action="append", choices=BATCHES, help="measure this alone; may be repeated")
    parser.add_argument("--explain", action="store_true", help="also say what the fullest memory of `update` is made of")
    parser.add_argument("--precision", action="store_true", help="only log-probabilities against float32; with --gpus 1")
    parser.add_argument("--tiny", action="store_true", help="the tiny model, on a CPU, without flash-attn")
    parser.add_argument("--out", type=Path, help="add the lines of JSON to this file too")
    options = parser.parse_intermixed_args(arguments)
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "reinforcement_learning.verl_adapter.plugin"
    if options.tiny:
        os.environ["VERL_PLATFORM"] = "cpu"
        options.overlay = [*options.overlay, "_no_flash_attn"]
        options.overrides = [*_TINY, *options.overrides]

    def report(result: dict[str, Any]) -> None:
        if result.get("time") != 1:
            print(as_text(result), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")

    def read(*more: str) -> Recipe:
        return load_recipe(options.recipe, [*options.overrides, *more], overlays=options.overlay)

    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), shape_of(read().run.model), tiny=options.tiny)
        recipe = read(f"run.model={directory}")
        plan = make_plan(recipe, gpus=options.gpus)
        named = {"recipe": options.recipe, "overlays": options.overlay, "overrides": options.overrides}
        report(named | {"gpus": plan.layout.gpus, "shards": plan.layout.shards})
        with process_group(plan.layout.gpus):
            if options.precision:
                compare_precision(recipe, [min(plan.episode_tokens, plan.longest_tokens // 2)] * 2, report)
            else:
                only = [*(options.only or BATCHES), *(["update"] if options.explain else [])]
                measure(recipe, plan, report, only=only, tiny=options.tiny, explain=options.explain)


if __name__ == "__main__":
    main(sys.argv[1:])
