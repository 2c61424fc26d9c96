"""Recorded rollouts in the format of RL Logging Board, which shows every token with its reward and probability.

    python -m reinforcement_learning.logging_board RUN --out logs/rl_logging_board/deepeyes/run

The board (HarderThenHarder/RLLoggingBoard cf56d5d) reads every .jsonl of a folder. One line a rollout: `step`, `prompt`,
`response`, `response_tokens`, `logprobs`, `token_rewards`, `reward`, `ground_truth`; with a KL term `ref_logprobs` too, for
the board's log-ratio. The reward stands on the last token, as verl places it; observations are no part of the response.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agent.records import Rollout
from agent.trajectory import read_rollouts
from code_sandbox.command_line import CommandParser
from reinforcement_learning.resume import REF_LOG_PROBS


def board_row(rollout: Rollout, decode: Callable[[int], str], ref_logprobs: Sequence[float] = ()) -> dict[str, Any]:
    """One rollout as the board wants it.

    Args:
        rollout: A scored rollout.
        decode: Token id -> text.
        ref_logprobs: [num_sampled_tokens]; left out if they are of another number of tokens, as where verl masked some.
    """
    ids = [token for turn in rollout.episode.turns for token in turn.reply.token_ids]
    reward = rollout.facts.reward or 0.0
    return {
        "step": rollout.facts.step,
        "prompt": "\n".join(message.text for message in rollout.episode.opening),
        "response": "\n".join(rollout.episode.replies),
        "response_tokens": [decode(token) for token in ids],
        "logprobs": [value for turn in rollout.episode.turns for value in turn.reply.logprobs],
        "token_rewards": [0.0] * (len(ids) - 1) + [reward] if ids else [],
        "reward": reward,
        "ground_truth": rollout.facts.gold,
    } | ({"ref_logprobs": [float(value) for value in ref_logprobs]} if ids and len(ref_logprobs) == len(ids) else {})


class _References:
    """The reference policy's log-probabilities of a run; those of the last step that was asked for are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step: int | None = None
        self._values: dict[str, Sequence[float]] = {}

    def of(self, rollout: Rollout) -> Sequence[float]:
        """[num_sampled_tokens]; nothing if there are none."""
        step = rollout.facts.step
        if step != self._step:
            path = self._folder / f"{step}.npz"
            self._step, self._values = step, {}
            if path.is_file():
                with np.load(path) as values:
                    self._values = dict(values)
        return self._values.get(rollout.episode.episode_id, ())


def board_rows(run: Path, decode: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    """Every rollout that was trained on; lost ones have no reward, and those of a validation are no part of a step."""
    references = _References(run / REF_LOG_PROBS)
    for rollout in read_rollouts(run / "rollouts"):
        if rollout.facts.reward is not None and not rollout.facts.validation:
            yield board_row(rollout, decode, references.of(rollout))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = CommandParser(
        prog="python -m reinforcement_learning.logging_board", description="Export rollouts for RL Logging Board."
    )
    parser.add_argument("run", type=Path, help="the folder of an RL run")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the board")
    options = parser.parse_args(arguments)
    recipe = options.run / "recipe.resolved.yaml"
    if not recipe.is_file():
        parser.error(f"{options.run} is no RL run: there is no {recipe}")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(yaml.safe_load(recipe.read_text(encoding="utf-8"))["run"]["model"])
    options.out.mkdir(parents=True, exist_ok=True)
    count = 0
    with (options.out / "rollout_data_rank0.jsonl").open("w", encoding="utf-8") as lines:
        for row in board_rows(options.run, lambda token: str(tokenizer.decode([token]))):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    sys.stdout.write(f"{count} rollouts in {options.out}\n")


if __name__ == "__main__":
    main()
