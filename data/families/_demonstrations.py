"""Demonstrations whose every observation was seen: code is run, searches are made, and the loop's own texts come back."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from PIL import Image

from agent.images import ImageFile
from agent.messages import Message
from agent.protocol import PYTHON, render_code_observation
from agent.search.providers import local, local_images
from agent.settings import AgentSettings
from agent.tools import Tool, ToolContext, build_tools
from data.families import Call, Question


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectShares:
    """How often the cold start shows an answer without a tool: it is what ties the tool to what is seen."""

    not_needed: float = 0.8
    """Of questions that need no tool: the right answer."""
    needed: float = 0.2
    """Of questions that need one: an answer that only chance makes right."""

    def __post_init__(self) -> None:
        for name in ("not_needed", "needed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"the share {name} is {getattr(self, name)}; expected 0 to 1")


class Runner:
    """The tools of one family: its code is run in this process, its searches are those of training.

    Args:
        pages: File of the local text search; None for families that do not search.
        pictures: Folder of the local image search; None likewise.
    """

    def __init__(self, pages: Path | None = None, pictures: Path | None = None) -> None:
        self._search = None if pages is None else local.Provider(local.Settings(path=pages))
        self._image_search = None if pictures is None else local_images.Provider(local_images.Settings(path=pictures))

    def run(self, calls: Sequence[Call], image: Image.Image | None) -> list[Message]:
        """What a model that makes these calls one after another is told."""
        shown: list[Image.Image] = []
        names: dict[str, Any] = {"display": shown.append, "image_1": image}
        tools = self._tools(calls, image)
        observations = []
        for call in calls:
            if call.name != PYTHON:
                observations.append(asyncio.run(tools[call.name].run(call.arguments)).observation)
                continue
            shown.clear()
            printed = StringIO()
            with redirect_stdout(printed):
                exec(call.arguments["code"], names)  # noqa: S102 - the family's own code
            images = [ImageFile.from_pil(one) for one in shown]
            observations.append(render_code_observation(stdout=printed.getvalue().rstrip("\n"), stderr="", images=images))
        return observations

    def _tools(self, calls: Sequence[Call], image: Image.Image | None) -> dict[str, Tool]:
        context = ToolContext(
            images=() if image is None else (ImageFile.from_pil(image),),
            search=self._search,
            image_search=self._image_search,
            settings=AgentSettings(),
        )
        return build_tools(list({call.name for call in calls} - {PYTHON}), context)


def demonstration(
    question: Question, rng: random.Random, runner: Runner, shares: DirectShares
) -> tuple[list[dict[str, str]], list[ImageFile]]:
    """(messages after the question, images in them): an answer at once, or what leads to it.

    Args:
        question: To be answered.
        rng: Decides which of the two, and what is guessed.
        runner: Of the family.
        shares: Of answers at once.
    """
    if rng.random() < (shares.needed if question.tool_needed else shares.not_needed):
        answer = rng.choice(question.others) if question.tool_needed else question.answer
        return [_assistant(f"It is {answer}.", _answer(answer))], []
    rows: list[dict[str, str]] = []
    images: list[ImageFile] = []
    for call, observation in zip(question.calls, runner.run(question.calls, question.image), strict=True):
        rows += [_assistant(call.thought, _action(call)), {"role": observation.role, "content": observation.text}]
        images += observation.images
    rows.append(_assistant(f"It is {question.answer}.", _answer(question.answer)))
    return rows, images


def _action(call: Call) -> str:
    if call.name == PYTHON:
        return f"<code>\n```python\n{call.arguments['code']}\n```\n</code>"
    return f"<tool_call>\n{json.dumps({'name': call.name, 'arguments': call.arguments})}\n</tool_call>"


def _answer(text: str) -> str:
    return f"<answer>{text}</answer>"


def _assistant(thought: str, action: str) -> dict[str, str]:
    return {"role": "assistant", "content": f"<think>{thought}</think>\n{action}"}
