"""One rank of verl's own engine on a CPU, with the settings of a recipe. `python -m tests.engine_rank RECIPE MODEL [OVERLAY | KEY=VALUE …]`.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which. The batch is two rows of text and one with two images of odd shapes.
Writes one line of JSON: where the weights were when the engine had read them, and how far parameters, buffers and
log-probabilities are from those of Hugging Face's model.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed


def build_engine(recipe_name, model, more):
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from reinforcement_learning.recipe import load_recipe
    from reinforcement_learning.verl_adapter.launch import compose_config

    overrides = [text for text in more if "=" in text]
    overlays = [text for text in more if "=" not in text]
    recipe = load_recipe(recipe_name, [f"verl.actor_rollout_ref.model.path={model}", *overrides], overlays=overlays)
    config = compose_config(recipe.verl, recipe.verl_extra).actor_rollout_ref
    model_config, actor = omega_conf_to_dataclass(config.model), omega_conf_to_dataclass(config.actor)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=model_config,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    seen = {}
    build = engine._build_module

    def build_and_look():
        module = build()
        seen["devices"] = sorted({parameter.device.type for parameter in module.parameters()})
        return module

    engine._build_module = build_and_look
    engine.initialize()
    return engine, model_config, seen["devices"]


def two_images():
    from PIL import Image

    return [Image.effect_noise((150, 70), 90).convert("RGB"), Image.effect_noise((40, 100), 90).convert("RGB")]


def text_with_two_images(model):
    from agent.chat_formats import format_of_folder

    picture = format_of_folder(Path(model)).image(1)
    return f"look at {picture} and at {picture}, then say"


def rows_of(model, images):
    """(ids, what Hugging Face's model wants beside them, positions by Hugging Face's own code for verl) of each row."""
    from verl.utils import hf_processor

    processor = hf_processor(model)
    found = dict(processor(text=[text_with_two_images(model)], images=images, return_tensors="pt"))
    ids, types = found.pop("input_ids")[0], found.pop("mm_token_type_ids")
    found.pop("attention_mask")
    positions, _ = processor.get_rope_index(ids[None], types, found["image_grid_thw"])
    shown = torch.cat([torch.arange(len(ids))[None], positions[:, 0]])
    yield ids, {**found, "mm_token_type_ids": types}, shown
    for start, stop in [(20, 52), (30, 47)]:
        text = torch.arange(start, stop)
        yield text, {}, torch.arange(len(text)).expand(4, -1).contiguous()


def batch_of(rows, model_config):
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    data = TensorDict(
        {
            "input_ids": torch.nested.as_nested_tensor([ids for ids, _, _ in rows], layout=torch.jagged),
            "position_ids": tu.nested_tensor_from_tensor_list([positions for _, _, positions in rows], ragged_idx=2),
        },
        batch_size=[len(rows)],
    )
    inputs = [{name: value for name, value in more.items() if name != "mm_token_type_ids"} for _, more, _ in rows]
    tu.assign_non_tensor_stack(data, "multi_modal_inputs", inputs)
    tu.assign_non_tensor(
        data,
        temperature=1.0,
        use_remove_padding=model_config.use_remove_padding,
        use_fused_kernels=model_config.use_fused_kernels,
    )
    return data


def log_probs_of(engine, data):
    inputs, arguments = engine.prepare_model_inputs(data)
    output = engine.module(**inputs, use_cache=False)
    return engine.prepare_model_outputs(output, arguments, data, None)["log_probs"].unbind()


def likeness(engine, plain):
    """Smallest cosine between a gradient of the engine and the plain model's; ranks saw the same batch, so the mean is the same."""
    found = dict(engine.module.named_parameters())
    names = [
        "lm_head.weight", "model.language_model.embed_tokens.weight", "model.language_model.layers.0.mlp.up_proj.weight",
        "model.language_model.layers.0.mlp.experts.down_proj", "model.visual.patch_embed.proj.weight",
        *(name for name in found if "visual.deepstack_merger_list" in name and name.endswith("linear_fc2.weight")),
    ]  # fmt: skip
    return min(
        torch.nn.functional.cosine_similarity(
            found[name].grad.full_tensor().float().flatten(), plain[name].grad.float().flatten(), dim=0
        ).item()
        for name in names
        if name in found
    )


def main() -> None:
    recipe, model, more = sys.argv[1], sys.argv[2], sys.argv[3:]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    from transformers import AutoConfig, AutoModelForImageTextToText

    plain_config = AutoConfig.from_pretrained(model, attn_implementation="sdpa")
    plain = AutoModelForImageTextToText.from_pretrained(model, config=plain_config, dtype=torch.float32)
    rows, expected = list(rows_of(model, two_images())), []
    # Before verl changes the classes.
    for ids, beside, _ in rows:
        logits = plain(input_ids=ids[None], use_cache=False, **beside).logits[0].log_softmax(-1)
        expected.append(logits[:-1].gather(-1, ids[1:, None])[:, 0])
    torch.cat(expected).sum().backward()
    engine, model_config, devices = build_engine(recipe, model, more)
    parameters = dict(plain.named_parameters())
    buffers = dict(plain.named_buffers())
    found = log_probs_of(engine, batch_of(rows, model_config))
    torch.cat([row[: len(wanted)] for row, wanted in zip(found, expected, strict=True)]).sum().backward()
    facts = {
        "rank": torch.distributed.get_rank(),
        "tied": plain_config.tie_word_embeddings,
        "devices": devices,
        "attention": engine.module.config._attn_implementation,
        "remove_padding": model_config.use_remove_padding,
        "parameters": max(
            (value.full_tensor().float() - parameters[name]).abs().max().item()
            for name, value in engine.module.named_parameters()
        ),
        "buffers": max(
            (value.float() - buffers[name].float()).abs().max().item() for name, value in engine.module.named_buffers()
        ),
        "fused": model_config.use_fused_kernels,
        "gradients": likeness(engine, parameters),
        "log_probs": max((a[: len(b)] - b).abs().max().item() for a, b in zip(found, expected, strict=True)),
    }
    Path(os.environ["FACTS"]).write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
