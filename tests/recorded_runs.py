"""Runs of evaluations that were never asked of a model, for tests of what is made of them."""

import asyncio
import json

import httpx

from agent.episode import Episode, Outage, StopReason, Turn
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, ToolCall
from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import load_benchmark
from evaluation.runs.folder import facts_of, open_run
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from evaluation.smoke.lookalikes import write_lookalike
from judge.client import Judge, JudgeSettings
from tests.conftest import png

CROP = "display(image_1.crop((0, 0, 9, 9)))"


def episode(answer, *, code=None, failure="", error="", finish="stop", num_tokens=5):
    if failure:
        return Episode(opening=(Message("user", "q"),), end=Outage(reason=failure))
    turns = []
    if code is not None:
        reply = Reply(text=f"<think>t</think><code>\n```python\n{code}\n```\n</code>", finish="stop", num_tokens=9)
        shown = Message("user", "Code execution result:\n<image>", (ImageFile(png(30, 20)),))
        turns.append(Turn(reply=reply, action=ToolCall("python", {"code": code}), observation=shown, tool_error=error))
    text = f"<think>t</think><answer>{answer}</answer>" if answer else ""
    turns.append(Turn(reply=Reply(text=text, finish=finish, num_tokens=num_tokens), action=FinalAnswer(answer)))
    opening = (Message("system", "s"), Message("user", "<image>\nq", (ImageFile(png(40, 40)),)))
    return Episode(opening=opening, turns=turns, end=StopReason.ANSWERED, answer=answer)


def make_run(directory, make, *, benchmark="vstar", count=12, judge=None, samples=1, profile="vlmevalkit", **settings):
    """A scored run; `make(item, sample)` gives an episode, or None for one that was not run."""
    data = write_lookalike(benchmark, directory.parent / "data", count=count)
    settings = {"prompt": "deepeyesv2_code"} | settings
    given = EvaluationSettings(benchmark=benchmark, data=str(data), model="m", samples=samples, **settings)
    one = load_benchmark(benchmark)
    open_run(directory, given, one, data)
    writer = TrajectoryWriter(directory)
    for item in one.load(data):
        for sample in range(samples):
            made = make(item, sample)
            if made is not None:
                writer.write(made, facts_of(item, benchmark, sample))
    grader = Grader(load_profile(profile), judge or Judge(JudgeSettings()))
    return asyncio.run(score(directory, one, grader))


def stub(reply, **settings):
    def handle(request):
        prompt = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(200, json={"choices": [{"message": {"content": reply(prompt)}}]})

    return Judge(JudgeSettings(base_urls=("http://a/v1",), attempts=1, **settings), transport=httpx.MockTransport(handle))


def right_or(item, wrong="Z"):
    return item.gold if int(item.item_id) % 2 == 0 else wrong
