"""Checkpoints as verl's own manager writes them, of a tiny model on one or more ranks, without a whole training.

python -m tests.shards save MODEL DIRECTORY RANKS [FSDP_SIZE]     one checkpoint after a step of the optimiser
python -m tests.shards loop MODEL DIRECTORY                       for ever; killed from outside
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from reinforcement_learning.checkpoints import Checkpoints


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


CONTENTS = ["model", "optimizer", "extra"]


def manager(model_path: Path, rendezvous: Path, *, rank: int = 0, ranks: int = 1, fsdp_size: int = 0, lora: bool = False):
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    torch.manual_seed(0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    if fsdp_size and fsdp_size != ranks:
        mesh = init_device_mesh("cpu", (ranks // fsdp_size, fsdp_size), mesh_dim_names=("ddp", "fsdp"))
    else:
        mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    model = AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32)
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        )
    for layer in model.get_decoder().layers if not lora else ():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    found = FSDPCheckpointManager(
        model, optimizer, scheduler, AutoProcessor.from_pretrained(model_path), {"save_contents": CONTENTS, "load_contents": CONTENTS}
    )  # fmt: skip
    return model, found


def save(model: Path, directory: Path, ranks: int, fsdp_size: int = 0, lora: bool = False) -> None:
    """One checkpoint of step 2; beside it `expected.pt`, the whole weights."""
    # Once for all ranks, before they part.
    import verl.utils.checkpoint.fsdp_checkpoint_manager  # noqa: F401

    checkpoints, rendezvous = Checkpoints(directory), Path(tempfile.mkdtemp()) / "store"
    checkpoints.begin()
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            try:
                import torch

                module, saver = manager(model, rendezvous, rank=rank, ranks=ranks, fsdp_size=fsdp_size, lora=lora)
                whole = {
                    name: getattr(value, "full_tensor", lambda value=value: value)()
                    for name, value in module.state_dict().items()
                }
                if rank == 0:
                    torch.save(whole, directory / "expected.pt")
                saver.save_checkpoint(str(checkpoints.saving / "global_step_2/actor"), global_step=2)
                os._exit(0)
            except BaseException as error:  # noqa: BLE001 - told to the test
                say(f"rank {rank}: {type(error).__name__}: {error}")
                os._exit(1)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    checkpoints.finish(2, {})


def loop(model: Path, directory: Path) -> None:
    """Resume, then save step after step; says what it resumed from and what it has saved."""
    checkpoints = Checkpoints(directory, keep=2)
    _, saver = manager(model, Path(tempfile.mkdtemp()) / "store")
    newest = checkpoints.newest()
    checkpoints.tidy(newest.step if newest else None)
    step = 0
    if newest:
        saver.load_checkpoint(str(newest.path / "actor"))
        step = newest.step
    say(f"resumed {step}")
    while True:
        step += 1
        checkpoints.begin()
        saver.save_checkpoint(str(checkpoints.saving / f"global_step_{step}/actor"), global_step=step)
        checkpoints.finish(step, {"step": step})
        say(f"saved {step}")


def forked_loops(model: Path, directory: Path) -> None:
    """A loop for each line of the input, in a process of its own that is forked: importing torch takes ten seconds."""
    import verl.utils.checkpoint.fsdp_checkpoint_manager  # noqa: F401

    say("ready")
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            say(f"child {os.getpid()}")
            try:
                loop(model, directory)
            except BaseException as error:  # noqa: BLE001 - told to the test
                say(f"broken {type(error).__name__}: {error}")
            os._exit(1)
        os.waitpid(child, 0)
        say("gone")


if __name__ == "__main__":
    command, model_path, directory_path, *numbers = sys.argv[1:]
    Path(directory_path).mkdir(parents=True, exist_ok=True)
    if command == "save":
        words = [word for word in numbers if word != "lora"]
        save(Path(model_path), Path(directory_path), *map(int, words), lora="lora" in numbers)
    else:
        forked_loops(Path(model_path), Path(directory_path))
