"""`deepeyes chat --web` as a person uses it: the real command, a real sandbox, a simulated model, and a real headless Chromium."""

import io
import json
import time
import zipfile
from urllib.parse import urlsplit

import httpx
import pytest

from agent.trajectory import read_rollouts
from evaluation.smoke.scripted_model import request_server
from tests.browser import CONTRASTS, browser, chromium, look
from tests.chat_page import ASKED, add_image, converse, served_page, type_and_send, whole_scene

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(chromium() is None, reason="needs a Chromium: install chromium, chromium-browser or google-chrome"),
]
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
TEXT = "document.getElementById('transcript').innerText"
ENDS = "document.querySelectorAll('.end').length"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(link, folder of the records)."""
    folder = tmp_path_factory.mktemp("scene")
    with whole_scene(folder) as url:
        yield url, folder / "run"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (420, 860)])
def test_a_question_about_a_dropped_image_is_answered_legibly_at_every_size_in_both_themes(page, scene, width, height, theme, tmp_path):
    converse(page, scene[0], width=width, height=height, theme=theme)
    assert "It says BAKERY" in page.run(TEXT)
    assert ASKED in page.run(TEXT)
    assert page.run("document.querySelectorAll('.observation .figure img').length") == 1
    assert page.run("document.querySelectorAll('.turn pre .mi').length") == 6  # the numbers of the code, coloured
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("document.getElementById('settings').open = true")
    box = page.run("(r => [r.left, r.top, r.right])(document.getElementById('choices').getBoundingClientRect())")
    assert box[0] >= 0
    assert box[1] >= 0
    assert box[2] <= width
    assert page.run(CONTRASTS) == []
    page.screenshot(tmp_path / "page.png")
    dark = page.run("getComputedStyle(document.body).backgroundColor")
    page.run("document.getElementById('theme').click()")
    assert page.run("getComputedStyle(document.body).backgroundColor") != dark
    assert page.run(CONTRASTS) == []
    page.run("localStorage.clear()")


def test_a_follow_up_has_the_session_of_the_question_before_and_the_settings_are_kept(page, scene):
    converse(page, scene[0], width=1400, height=900, theme="light")
    type_and_send(page, "How many colours has it?")
    page.wait_for(f"{ENDS} === 2")
    assert "colours" in page.run("[...document.querySelectorAll('.observation')].at(-1).innerText")
    assert page.run("document.getElementById('choices').disabled")
    assert page.run("!document.getElementById('locked').hidden")
    records = list(read_rollouts(scene[1]))
    assert [record.facts.question for record in records[-2:]] == [ASKED, "How many colours has it?"]
    assert records[-1].episode.turns[0].tool_error == ""


def test_the_whole_conversation_is_there_for_who_comes_back_and_in_a_second_tab(page, scene):
    converse(page, scene[0], width=1400, height=900, theme="light")
    shown, address = page.run(TEXT), page.run("location.href")
    page.open(address)
    page.wait_for(f"{ENDS} === 1")
    assert page.run(TEXT) == shown
    answer = httpx.post(  # the other tab
        f"{scene[0]}api/questions", json={"text": "And again?", "conversation": address.rpartition("/")[2]}
    )
    assert answer.status_code == 202
    page.wait_for(f"{ENDS} === 2")
    assert "And again?" in page.run(TEXT)


def test_a_record_is_replayed_step_by_step_by_keys_and_opened_in_the_viewer(page, scene):
    converse(page, scene[0], width=420, height=860, theme="dark")
    in_viewer = page.run("document.querySelector('.end a[href^=view]').href")
    page.run("location.hash = '#/replay'")
    page.wait_for("document.querySelectorAll('.records tbody tr').length > 0")
    page.run("document.querySelector('.records tbody a').click()")
    page.wait_for("document.querySelectorAll('.end').length === 1")
    assert page.run("document.getElementById('composer').hidden")
    assert ASKED in page.run(TEXT)
    page.run("document.activeElement.blur()")
    for _ in range(2):
        for kind in ("rawKeyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
    page.wait_for("location.hash.includes('step=3')")
    assert page.run("document.querySelectorAll('.turn').length") == 1
    assert page.run("document.querySelectorAll('.observation').length") == 1
    assert page.run(CONTRASTS) == []
    assert page.run("document.documentElement.scrollWidth") <= 420
    page.open(in_viewer)
    assert ASKED in page.run("document.body.innerText")
    assert "this ran" in page.run("document.body.innerText")


def test_the_page_speaks_chinese_where_the_browser_does(page, scene):
    agent = page.run("navigator.userAgent")
    page.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage="zh-CN")
    try:
        converse(page, scene[0], width=420, height=860, theme="light")
        shown = page.run("document.body.innerText")
        for words in ("对话", "设置", "提问", "轮", "系统提示词", "复制答案"):
            assert words in shown, words
        assert page.run("document.documentElement.lang") == "zh-CN"
        assert page.run("document.getElementById('question').placeholder") == "输入问题"
        # Whatever of the page is still English is a name, or was said by others.
        page.run("document.getElementById('transcript').remove()")
        assert [word for word in ("Ask", "Settings", "Image", "Chat", "Viewer", "Stop") if word in page.run("document.body.innerText")] == []
    finally:
        page.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage="en-US")


def test_an_upload_of_no_image_or_of_too_much_is_said_in_words_and_the_question_stays(page, scene):
    look(page, width=420, height=860, theme="light")
    page.open(scene[0])
    page.run("document.getElementById('question').value = 'kept'")
    add_image(page, b"no image", name="notes.txt", kind="text/plain")
    page.wait_for("document.getElementById('notice').textContent.includes('notes.txt: this file is no image')")
    large = "Object.assign(new File([], 'large.png'), {}), 'size', {value: 100 * 2 ** 20}"
    page.run(f"""(() => {{
        const file = Object.defineProperty({large});
        document.dispatchEvent(Object.assign(new Event('paste'), {{clipboardData: {{files: [file]}}}}));
    }})()""")
    page.wait_for("document.getElementById('notice').textContent === 'large.png has 100 MiB; an image may have 20.'")
    assert page.run("document.getElementById('question').value") == "kept"
    assert page.run("document.querySelectorAll('#pending img').length") == 0


def test_everything_is_reached_by_keyboard(page, scene):
    converse(page, scene[0], width=1400, height=900, theme="light")
    page.run("document.querySelector('.brand').focus()")
    reached = []
    for _ in range(60):
        for kind in ("rawKeyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.run("document.activeElement.id || document.activeElement.textContent.trim()"))
        if reached[-1] == "send":
            break
    for name in ("Replay", "theme", "System prompt", "Copy", "Download", "question", "attach", "Settings", "send"):
        assert name in reached, reached
    page.run("document.querySelector('.observation .figure').focus()")
    for kind, text in (("rawKeyDown", ""), ("char", "\r"), ("keyUp", "")):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text=text)
    page.wait_for("document.getElementById('zoom').open")
    assert "px" in page.run("document.getElementById('zoom-size').textContent")
    page.run("document.getElementById('zoom-close').click()")


@pytest.fixture
def evil(tmp_path):
    """Link of a page whose model writes script into every field, slowly."""
    replies = [
        f"<think>{EVIL}</think>\n<code>\n```python\nprint('''{EVIL}''')\n```\n</code>",
        f'{EVIL}</think><tool_call>{{"name": {json.dumps(EVIL)}, "arguments": {{"a": {json.dumps(EVIL)}}}}}</tool_call>',
        f"{EVIL}</think>\n<answer>{EVIL}</answer>",
    ]

    def reply(body):
        return replies[min(2, sum(message["role"] == "user" for message in body["messages"]) - 1)]

    with (
        request_server(reply, models=(EVIL,), pause_s=0.01) as model,
        served_page(model, tmp_path / "run", "--sandbox-urls", "http://127.0.0.1:9", "--sandbox-wait-s", "0") as url,
    ):
        yield url, tmp_path / "run"


def test_a_hostile_reply_and_its_record_run_nothing_while_they_stream_afterwards_and_in_the_replay(page, evil):
    look(page, width=1400, height=900, theme="light")
    page.open(evil[0])
    assert "start one with `deepeyes sandbox serve`" in page.run("document.getElementById('problems').textContent")
    page.run("document.querySelector('[name=tool]').click()")  # no Python, of which there is none
    type_and_send(page, EVIL)
    page.wait_for("document.querySelector('.turn.live') !== null")
    page.wait_for(f"{ENDS} === 1")
    for _ in range(2):
        assert page.run("document.title") == "DeepEyes"
        assert page.run("document.querySelectorAll('main script, main img[src=x]').length") == 0
        assert page.run(TEXT).count("<script>") >= 4
        page.run("location.hash = '#/replay/1'")
        page.wait_for("!document.getElementById('player').hidden")
    with pytest.raises(AssertionError, match="TrustedHTML"):
        page.run("document.body.innerHTML = 'x'")


def test_stop_ends_the_answer_which_is_recorded_and_a_closed_tab_does_not(page, evil):
    look(page, width=1400, height=900, theme="light")
    page.open(evil[0])
    page.run("document.querySelector('[name=tool]').click()")
    type_and_send(page, "stopped")
    page.wait_for("document.querySelector('.turn.live') !== null")
    page.run("document.getElementById('stop').click()")
    page.wait_for("document.querySelector('.end .failure') !== null")
    assert "Stopped" in page.run("document.querySelector('.failure').textContent")
    page.run("location.hash = '#/'")
    page.wait_for("document.getElementById('transcript').childElementCount === 0")
    type_and_send(page, "goes on")
    page.wait_for("document.querySelector('.turn.live') !== null")
    page.call("Page.navigate", url="about:blank")
    until = time.monotonic() + 20
    while httpx.get(f"{evil[0]}api/records").json()["total"] < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    stopped, went_on = read_rollouts(evil[1])
    assert (stopped.facts.question, stopped.episode.failure) == ("stopped", "Stopped: by the one who asked")
    assert (went_on.facts.question, went_on.episode.failed) == ("goes on", False)
    address = httpx.get(f"{evil[0]}api/records/2/download")
    names = zipfile.ZipFile(io.BytesIO(address.content)).namelist()
    assert any(name.endswith("/episodes.jsonl") for name in names)


def test_a_model_server_that_dies_is_said_on_the_page_and_the_next_question_may_go_well(page, tmp_path):
    first = request_server(lambda _: "<answer>before</answer>", models=("m",))
    model = first.__enter__()
    with served_page(model, tmp_path / "run", "--tools", "") as url:
        look(page, width=420, height=860, theme="dark")
        page.open(url)
        type_and_send(page, "one")
        page.wait_for(f"{ENDS} === 1")
        first.__exit__(None, None, None)
        type_and_send(page, "two")
        page.wait_for("document.querySelector('.end .failure')?.textContent.includes('is the server up')")
        assert page.run(CONTRASTS) == []
        with request_server(lambda _: "<answer>after</answer>", models=("m",), port=urlsplit(model).port):
            page.wait_for("!document.getElementById('send').hidden")
            type_and_send(page, "three")
            page.wait_for(f"{ENDS} === 3")
        assert "after" in page.run("[...document.querySelectorAll('.answer')].at(-1).textContent")
    first, lost, last = read_rollouts(tmp_path / "run")
    assert lost.episode.failed
    assert [message.text for message in last.episode.opening if message.role == "assistant"] == ["<answer>before</answer>"]
