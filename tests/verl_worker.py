"""verl's own agent worker with a dict for TransferQueue and a list for an engine; run as a program, for verl is imported once.

    python -m tests.verl_worker MODEL DIRECTORY < scenarios.json

A scenario is `{row: {…}, agent: {…}, rollout: {…}, replies: [[…] for each rollout], break_in: "…"}`. Prints one JSON object
for each: the tags and trajectories in TransferQueue, the records, what was announced, and what the sandbox was given.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any


class Queue:
    """Of TransferQueue what workers use. As there, tags are read, added to and written back, and others may come between."""

    def __init__(self, fails: list[str]) -> None:
        self.fails = fails
        """Statuses that are refused once each."""
        self.tags: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, Any] = {}

    def init(self, *args: Any, **kwargs: Any) -> None:
        pass

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        if tag.get("status") in self.fails:
            self.fails.remove(tag["status"])
            raise ConnectionError(f"no room for {tag['status']}")
        known = dict(self.tags.get(key, {}))
        await asyncio.sleep(0.001)
        self.tags[key] = known | tag

    async def async_kv_batch_put(self, keys: Any, fields: Any, tags: Any, partition_id: str) -> None:
        for number, (key, tag) in enumerate(zip(keys, tags, strict=True)):
            self.tags[key], self.fields[key] = tag, fields[number]


class Engine:
    """Says given replies. A dict stands for a fault: `{"raise": text}`, `{"abort": true}`, `{"hang": true}`."""

    def __init__(self, tokenizer: Any, replies: list[list[Any]]) -> None:
        self.tokenizer, self.replies, self.sessions = tokenizer, replies, dict[str, list[Any]]()
        self.seen: list[dict[str, Any]] = []

    async def generate(self, *, request_id: str, prompt_ids: Any, sampling_params: Any, image_data: Any, **_: Any) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        from reinforcement_learning.verl_adapter.image_store import run_store

        said = self.sessions.setdefault(request_id, list(self.replies[len(self.sessions) % len(self.replies)])).pop(0)
        files = [hashlib.sha256(run_store().get(ref.name)).hexdigest() for ref in image_data or []]
        bounds = {name: sampling_params[name] for name in ("max_tokens", "stop", "include_stop_str_in_output")}
        self.seen.append({"text": self.tokenizer.decode(prompt_ids), "images": len(files), "files": files, **bounds})
        if isinstance(said, dict) and "raise" in said:
            raise ValueError(said["raise"])
        if isinstance(said, dict) and "hang" in said:
            await asyncio.Event().wait()
        if isinstance(said, dict):
            return TokenOutput(token_ids=[], log_probs=[], stop_reason="aborted")
        # Piece by piece, as a model that may not sample special tokens would spell them.
        ids = [i for letter in said for i in self.tokenizer(letter, add_special_tokens=False)["input_ids"]]
        ids.append(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed")


def configuration(model: str, directory: Path, agent: dict[str, Any], rollout: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf

    from reinforcement_learning.recipe import load_recipe
    from reinforcement_learning.settings import RolloutSettings
    from reinforcement_learning.verl_adapter import launch

    recipe = load_recipe("tiny_cpu")
    config = launch.compose_config(recipe.verl, recipe.verl_extra)
    OmegaConf.update(config, "actor_rollout_ref.model.path", model)
    for key, value in rollout.items():
        OmegaConf.update(config, f"actor_rollout_ref.rollout.{key}", value, force_add=True)
    settings = {**recipe.agent.model_dump(mode="json"), "record_directory": str(directory / "rollouts"), **agent}
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(RolloutSettings.model_validate(settings).model_dump_json())
    target = "reinforcement_learning.verl_adapter.agent_loop.EpisodeAgentLoop"
    loop = {"name": "deepeyes", "_target_": target, "settings_path": str(directory / "settings.json")}
    OmegaConf.save(OmegaConf.create([loop]), directory / "loop.yaml")
    config.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(directory / "loop.yaml")
    return config


async def play(model: str, directory: Path, scenario: dict[str, Any]) -> dict[str, Any]:
    import verl.trainer.ppo.v1.agent_loop_tq as verl_loop

    from agent import setup
    from agent.trajectory import read_rollouts
    from code_sandbox.testing import FakeSandbox
    from code_sandbox.wire import ExecuteResult
    from reinforcement_learning.verl_adapter import workers
    from reinforcement_learning.verl_adapter.image_store import STORE_VARIABLE, run_store

    queue, sandbox = (
        Queue(scenario.get("queue_fails", [])),
        FakeSandbox([ExecuteResult.model_validate(cell) for cell in scenario.get("cells", [])]),
    )
    workers.tq = verl_loop.tq = queue
    if not scenario.get("real_sandbox"):
        setup.SandboxClient = lambda *args, **kwargs: sandbox
    config = configuration(model, directory, scenario.get("agent", {}), scenario.get("rollout", {}))
    worker = workers.EpisodeWorker(config, None)
    worker.llm_client = engine = Engine(worker.tokenizer, scenario["replies"])
    if scenario.get("break_in"):
        fail_once(worker, scenario["break_in"])
    said = io.StringIO()
    log = logging.StreamHandler(said)
    logging.getLogger().addHandler(log)
    logging.getLogger("verl.trainer.ppo.v1.agent_loop_tq").addHandler(log)
    uid = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    os.environ[STORE_VARIABLE] = str(directory / "images")
    run_store.cache_clear()
    images = [run_store().put(base64.b64decode(image)) for image in scenario["row"].pop("images", [])]
    row = {
        "uid": uid,
        "agent_name": "deepeyes",
        "global_steps": 3,
        "index": "item-7",
        "image_names": images,
        **scenario["row"],
    }
    trajectory = {"validate": False, "step": 3, "sample_index": 7, "rollout_n": 0}
    with contextlib.redirect_stderr(said):
        await worker._run_prompt(row, {"temperature": 1.0}, trajectory)
    records = list(read_rollouts(directory / "rollouts")) if (directory / "rollouts").is_dir() else []
    return {
        "prompt": queue.tags[uid],
        "trajectories": sorted(key.removeprefix(f"{uid}_") for key in queue.fields),
        "extra": [dict(queue.fields[key]["extra_fields"]) for key in sorted(queue.fields)],
        "records": [
            record.facts.named() | {"stop": record.episode.stop_reason.value, "failure": record.episode.failure,
                                    "turns": len(record.episode.turns), "sample": record.facts.sample}
            for record in records
        ],
        "said": said.getvalue(),
        "seen": engine.seen,
        "sandbox_images": [len(data) for session in sandbox.sessions for data in session.images],
    }  # fmt: skip


def fail_once(worker: Any, name: str) -> None:
    """Make a method of the worker fail at its first call."""
    original, calls = getattr(worker, name), list[int]()

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise IndexError(f"{name} broke")
        return original(*args, **kwargs)

    setattr(worker, name, broken)


def hand_out(sizes: list[int], num_workers: int) -> list[list[Any]]:
    """What each of so many workers is given by our manager when batches of such sizes, made as verl makes them, come."""
    import ray
    import torch
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    from reinforcement_learning.verl_adapter.workers import EpisodeManager

    given: list[list[Any]] = [[] for _ in range(num_workers)]

    class Remote:
        def __init__(self, number: int) -> None:
            self.number = number

        def remote(self, batch: Any) -> None:
            given[self.number].append(
                (list(batch["index"]), [len(row) for row in batch["raw_prompt"]], batch["global_steps"])
            )

    ray.get = lambda answers: answers
    manager = object.__new__(EpisodeManager)
    manager._next = 0
    workers = [type("Worker", (), {"generate_sequences": Remote(number)})() for number in range(num_workers)]
    manager.agent_loop_workers = workers
    first = 0
    for size in sizes:
        rows = [
            {"index": first + n, "raw_prompt": [{"role": "user", "content": "q"}], "dummy_tensor": torch.tensor([0])}
            for n in range(size)
        ]
        batch = tu.get_tensordict(collate_fn(rows))
        tu.assign_non_tensor_data(batch, "global_steps", 5)
        manager.generate_sequences(batch)
        first += size
    return given


def main() -> None:
    model, directory = sys.argv[1], Path(sys.argv[2])
    scenarios = json.load(sys.stdin)
    found = {name: asyncio.run(play(model, directory / name, scenario)) for name, scenario in scenarios.items()}
    found["handed out"] = {"many": hand_out([8, 1, 1, 1, 1, 1], 3), "few": hand_out([2, 2], 5)}  # type: ignore[dict-item]
    (directory / "found.json").write_text(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
