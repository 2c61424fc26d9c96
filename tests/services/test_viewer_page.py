"""`deepeyes view` as its user sees it: the real server, and a real headless Chromium."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from agent.episode import run_episode
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.records import Rollout, RolloutFacts, to_line
from agent.settings import AgentSettings
from agent.testing import ScriptedPolicy
from agent.tools.python import PythonTool
from agent.trajectory import TrajectoryWriter, read_rollouts
from code_sandbox.testing import FakeSandbox
from code_sandbox.wire import CellError, CellImage, ExecuteResult
from serving.processes import free_port
from tests.browser import chromium
from tests.conftest import ROOT, png

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(chromium() is None, reason="needs a Chromium: install chromium, chromium-browser or google-chrome"),
]
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
CODE = f"<think>I crop & look. {EVIL}</think>\n<code>\n```python\nprint('''{EVIL}''')\n```\n</code>"


async def _record(directory, answers):
    writer = TrajectoryWriter(directory)
    for number, answer in enumerate(answers):
        image = CellImage(data=png(90, 60, (30, 30, 200)), mime="image/png", width_px=90, height_px=60)
        wrong = CellError(name="NameError", message="x", traceback=f"NameError: {EVIL}")
        cells = [ExecuteResult(status="ok", stdout=EVIL, images=[image]), ExecuteResult(status="error", error=wrong)]
        first = Reply(
            text=CODE, finish="stop", num_tokens=3, token_ids=(5, 6, 7), logprobs=(-0.1, -2.5, -6.0), context_ids=(9, 7, 7)
        )
        replies = [first, CODE, f"<answer>{answer}</answer>"][0 if number % 2 else 2 :]
        tools = {"python": PythonTool(FakeSandbox(cells), AgentSettings(python_timeout_s=1))}
        opening = (Message("system", "s"), Message("user", "<image>\nq?", (ImageFile(png(64, 48)),)))
        episode = await run_episode(opening, policy=ScriptedPolicy(*replies), tools=tools)
        right = answer == "red"
        facts = RolloutFacts(
            step=number // 4, category=("small", "large")[number % 2], item_id=f"item_{number}", gold="red",
            reward=float(right), score=float(right), correct=right, format=1.0,
        )  # fmt: skip
        writer.write(episode, facts)


def _large(directory, count):
    """Records like those of a training run, made of one real record."""
    asyncio.run(_record(directory, ["red", "blue"]))
    kinds = list(read_rollouts(directory))
    with (directory / "episodes.jsonl").open("wb") as lines:
        for number in range(count):
            kind = kinds[number % 2]
            kind.episode.episode_id = f"{number:032x}"
            facts = replace(kind.facts, step=number // 500, item_id=f"item_{number}", reward=(number % 11) / 10)
            lines.write(to_line(Rollout(kind.episode, facts)))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """url of two small runs side by side, and of one with 100,000 episodes."""
    one, two, large = (tmp_path_factory.mktemp(name) for name in ("one", "two", "large"))
    asyncio.run(_record(one, ["red"] * 6 + ["blue"] * 2))
    asyncio.run(_record(two, ["red"] * 4 + ["blue"] * 4))
    _large(large, 100_000)
    processes, urls = [], []
    for directories in ([one, two], [large]):
        port = free_port()
        command = [sys.executable, "-m", "deepeyes.cli", "view", *map(str, directories), "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
        processes.append(process)
        assert process.stdout is not None
        urls.append(process.stdout.readline().split()[0])
    yield urls
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        process.stdout.close()


ROWS = "document.querySelectorAll('tbody tr').length"


def test_a_choice_in_the_list_filters_it_and_is_kept_in_the_address(page, served):
    page.open(served[0])
    assert page.run(ROWS) == 8
    page.run(
        "(s => { s.value = 'large'; s.dispatchEvent(new Event('change', {bubbles: true})); })(document.querySelector('[name=category]'))"
    )
    page.wait_for(f"{ROWS} === 4")
    assert "category=large" in page.run("location.hash")
    page.run("[...document.querySelectorAll('th a')].find(a => a.textContent.startsWith('reward')).click()")
    page.wait_for("location.hash.includes('sort=reward')")
    page.ready()
    assert page.run("document.querySelector('tbody tr td:nth-child(6)').textContent") == "0"
    page.open(served[0] + "#/?tool=none&step=0")
    assert page.run(ROWS) == 2
    page.open(served[0] + "#/?text=item_3")
    assert page.run(ROWS) == 1


def test_a_click_on_a_row_shows_the_episode_with_images_code_and_tokens_and_runs_nothing_of_it(page, served):
    page.open(served[0] + "#/?category=large")
    page.run("document.querySelector('tbody tr a').click()")
    page.wait_for("location.hash.startsWith('#/episode/')")
    page.ready()
    assert page.run("document.querySelectorAll('.acted.code code span').length") > 2
    assert page.run("document.title") == "deepeyes view"
    assert page.run("document.querySelectorAll('main script, main img[src=x]').length") == 0
    assert page.run("document.querySelector('.acted.code code').textContent") == f"print('''{EVIL}''')"
    page.wait_for("[...document.images].length === 2 && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.run("[...document.images].every(i => i.loading === 'lazy')")
    assert page.run("document.querySelectorAll('.message.error').length") == 1
    colours = page.run("[...document.querySelectorAll('.tokens span.sampled')].map(s => getComputedStyle(s).backgroundColor)")
    assert len(set(colours)) == 3
    assert page.run("document.querySelector('.tokens .context:nth-child(2)').textContent") == "7 ×2 "
    assert page.run("[...document.querySelectorAll('.facts b')].map(b => b.textContent).includes('red')")


def test_two_runs_stand_side_by_side_and_only_what_differs_on_request(page, served):
    page.open(served[0] + "#/compare")
    assert page.run(ROWS) == 8
    page.run("document.querySelector('input[type=checkbox]').click()")
    page.wait_for(f"{ROWS} === 2")
    page.run("document.querySelector('tbody tr a').click()")
    page.wait_for("location.hash.startsWith('#/pair?')")
    page.ready()
    assert page.run("document.querySelectorAll('.columns .episode').length") == 2


def test_a_hundred_thousand_episodes_are_listed_filtered_and_opened(page, served):
    page.open(served[1])
    # What is indexed by then is shown at once, and the rest without a reload.
    page.wait_for("document.getElementById('total').textContent === '1 to 100 of 100,000'", timeout_s=60)
    page.open(served[1] + "#/?step=199&min_reward=0.9&sort=reward&descending=1")
    assert page.run("document.querySelector('tbody tr td:nth-child(6)').textContent") == "1"
    page.open(served[1] + "#/?offset=99900")
    assert page.run(ROWS) == 100
    page.run("document.querySelector('tbody tr:last-child a').click()")
    page.wait_for(f"location.hash.startsWith('#/episode/{99_999:032x}')")
    page.ready()
    assert page.run("document.querySelector('h1').textContent") == "item_99999"


def test_what_cannot_be_shown_is_said(page, served):
    page.open(served[0].rstrip("/") + "/#/")
    page.run("location.hash = '#/episode/999'")
    page.wait_for("document.querySelector('.problem')?.textContent.includes('no episode \\'999\\'')")
