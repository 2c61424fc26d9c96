"""The pages of `deepeyes view` over whole runs, as their user sees them: a folder of runs, a real server, a real headless Chromium."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from agent.episode import Episode, Outage, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, ToolCall
from agent.records import Rollout, RolloutFacts, to_line
from tests.browser import chromium
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(chromium() is None, reason="needs a Chromium: install chromium, chromium-browser or google-chrome"),
]
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
RUN = "run=red~rollouts"
ROWS = "document.querySelectorAll('tbody tr').length"


def _rollout(number, *, step, answer="red", error="", failure="", **facts):
    """One of sixteen: four groups of four, of two sources."""
    call = Turn(
        reply=Reply(text=f"<think>我把红色方块裁下来看 {EVIL}</think>", finish="stop", num_tokens=9),
        action=ToolCall(("python", "search")[number % 2], {}),
        observation=Message("user", f"seen_{number}"),
        tool_error=error,
    )
    last = Turn(reply=Reply(text=f"<answer>{answer}</answer>", finish="stop", num_tokens=2), action=FinalAnswer(answer))
    episode = Episode(
        opening=(Message("user", f"question {number}"),), turns=[] if failure else [call, last],
        end=Outage(reason=failure) if failure else StopReason.ANSWERED, answer=None if failure else answer, episode_id=f"e{step}-{number}",
    )  # fmt: skip
    score = None if failure else float(number % 4 <= step)
    given = RolloutFacts(
        item_id=f"item {number // 4}", group=f"{step}-{number // 4}", sample=number % 4, step=step, source=("perception", "搜索")[number // 4 % 2],
        reward=score, score=score, gold="red", **facts,
    )  # fmt: skip
    return Rollout(episode, given)


def _write(directory, rollouts):
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "episodes.jsonl").open("ab") as file:
        file.writelines(map(to_line, rollouts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for step in range(4):
        _write(folder / "red/rollouts", [
            _rollout(number, step=step, error="NameError" if number == 5 else "", failure=f"sandbox: {EVIL} after {step} s" if number == 15 else "")
            for number in range(16)
        ])  # fmt: skip
    (folder / "red/recipe.resolved.yaml").write_text("verl: {algorithm: {adv_estimator: grpo}}")
    _write(folder / "blue", [_rollout(number, step=0, answer="blue") for number in range(4)])
    return folder


@pytest.fixture(scope="module")
def url(folder):
    command = [sys.executable, "-m", "deepeyes.cli", "view", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        yield process.stdout.readline().split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


@contextmanager
def shown_at(page, width, scheme):
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    yield
    page.call("Emulation.clearDeviceMetricsOverride")
    page.call("Emulation.setEmulatedMedia", features=[])


def _press(page, key):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, text="\r" if key == "Enter" else "", windowsVirtualKeyCode=13)


def _click(page, x, y):
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left", clickCount=1)


def test_a_folder_of_runs_is_chosen_from_and_two_of_them_stand_side_by_side(page, url):
    page.open(url)
    page.wait_for("location.hash === '#/runs'")
    page.ready()
    page.wait_for("[...document.querySelectorAll('tbody tr')].map(row => row.cells[1].textContent).join() === '4,64'")
    page.run("document.querySelectorAll('[type=checkbox]').forEach(box => box.click())")
    page.run("document.querySelector('button[type=button]:not(#theme)').click()")
    page.wait_for("location.hash.startsWith('#/compare?left_run=blue&right_run=red')")
    page.ready()
    assert page.run(ROWS) == 4
    page.open(url + "#/runs")
    page.run("document.querySelectorAll('tbody a')[1].click()")
    page.wait_for("location.hash === '#/?run=red%7Erollouts'")
    page.ready()
    assert page.run("document.getElementById('total').textContent") == "1 to 64 of 64"


def test_the_rollouts_of_a_prompt_stand_side_by_side_with_their_advantages(page, url):
    page.open(f"{url}#/groups?{RUN}")
    assert page.run(ROWS) == 16
    page.open(f"{url}#/groups?{RUN}&kind=equal")
    assert page.run(ROWS) == 5, "the four of the last step, and one of the step before, of which the wrong rollout was lost"
    page.open(f"{url}#/groups?{RUN}&step=0")
    page.run("document.querySelector('tbody a').click()")
    page.wait_for("location.hash.startsWith('#/group?')")
    page.ready()
    assert page.run("[...document.querySelectorAll('.member .facts b')].map(b => b.textContent)") == ["+1.500", "-0.500", "-0.500", "-0.500"]
    assert "divided by the group's deviation" in page.run("document.getElementById('rule').textContent")
    page.run("document.querySelector('.pager button').click()")
    page.wait_for("document.querySelectorAll('.member .episode').length === 4")
    assert page.run("document.querySelectorAll('main script, main img').length") == 0
    assert page.run("document.title") == "deepeyes view"


def test_a_point_of_a_curve_leads_to_its_episodes_and_so_does_the_table_by_keyboard(page, url):
    page.open(f"{url}#/curves?{RUN}&split=source")
    page.wait_for("document.querySelectorAll('.chart canvas').length >= 9")
    assert page.run("[...document.querySelectorAll('.legend span:not(.swatch)')].map(s => s.textContent)") == ["perception", "搜索"]
    box = page.run("(o => [o.left, o.top, o.width, o.height])(document.querySelector('[data-measure=accuracy] .u-over').getBoundingClientRect())")
    _click(page, box[0] + box[2] / 3, box[1] + box[3] * 0.5)  # the second of four steps
    page.wait_for("location.hash.startsWith('#/?')")
    page.ready()
    assert "step=1" in page.run("location.hash")
    assert page.run("document.getElementById('total').textContent") == "1 to 8 of 8"
    page.open(f"{url}#/curves?{RUN}&split=tool")
    page.run("document.querySelector('[data-measure=failed] summary').focus()")
    _press(page, "Enter")
    page.wait_for("document.querySelectorAll('[data-measure=failed] tbody a').length === 8")
    page.run("document.querySelectorAll('[data-measure=failed] tbody a')[7].focus()")
    _press(page, "Enter")
    page.wait_for("location.hash.includes('step=3') && location.hash.includes('tool=')")


def test_a_new_episode_appears_without_a_reload_and_takes_nothing_from_who_reads(page, url, folder):
    page.open(f"{url}#/curves?run=blue")
    page.run("window.here = 1; document.querySelector('[data-measure=reward] summary').focus()")
    _press(page, "Enter")
    _write(folder / "blue", [_rollout(number, step=1, answer="blue") for number in range(4)])
    page.wait_for("document.querySelectorAll('[data-measure=reward] tbody tr').length === 2")
    assert page.run("document.activeElement.textContent") == "Values"
    page.open(f"{url}#/?run=blue")
    page.run("window.here = 1; document.querySelector('[name=text]').focus()")
    _write(folder / "blue", [_rollout(4, step=2, answer="blue")])
    page.run("new Promise(done => setTimeout(done, 2500))")
    assert page.run(ROWS) == 8, "nothing is replaced under a hand that types"
    page.run("document.activeElement.blur()")
    page.wait_for(f"{ROWS} === 9 && window.here === 1")


def test_words_are_found_in_conversations_and_failures_by_their_reason(page, url):
    page.open(f"{url}#/search?{RUN}")
    page.run("document.querySelector('[name=find]').value = '红色方块'; document.querySelector('[role=search] button').click()")
    page.wait_for("location.hash.includes('find=')")
    page.ready()
    page.wait_for("document.querySelectorAll('.hits mark').length === 60")
    assert page.run("document.querySelector('mark').textContent") == "红色方块"
    page.open(f"{url}#/failures?{RUN}")
    page.wait_for("document.querySelectorAll('.reason a').length === 2")
    page.run("document.querySelector('.reason a').click()")
    page.wait_for("location.hash.includes('reason=outage')")
    page.ready()
    assert page.run(ROWS) == 4
    assert page.run("document.title") == "deepeyes view"
    page.run("document.querySelector('.filters a.button').click()")
    page.wait_for(f"{ROWS} === 64")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(page, url, scheme):
    with shown_at(page, 420, scheme):
        page.open(f"{url}#/groups?{RUN}&step=0")
        group = page.run("document.querySelector('tbody a').hash")
        for place in ("#/runs", f"#/groups?{RUN}", group, f"#/curves?{RUN}&split=source", f"#/failures?{RUN}", f"#/search?{RUN}&find=seen_3"):
            page.open(url + place)
            assert page.run("document.documentElement.scrollWidth") <= 420, place
        dark = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 80")
        assert dark == (scheme == "dark")
