"""Pages that stand alone as their readers see them, in a real headless Chromium."""

import pytest

from data.families import load_family
from data.families._files import Amounts, write_family
from deepeyes.quickstart.report import write_report
from evaluation.reports.leaderboard import write_leaderboard
from evaluation.reports.run_page import write_run_report
from tests.browser import BROKEN, CONTRASTS, browser, chromium, look
from tests.recorded_runs import CROP, episode, make_run, right_or
from tests.unit.test_quickstart_report import evaluated
from viewer.static_page import write_episodes_page

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(chromium() is None, reason="needs a Chromium: install chromium, chromium-browser or google-chrome"),
]
PAGES = ["runs/on/report.html", "quickstart/report.html", "leaderboard.html", "episodes.html"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs over the same items, one of another benchmark, a quickstart, and the pages of all."""
    folder = tmp_path_factory.mktemp("pages")
    make_run(folder / "runs/on", lambda item, _: episode(right_or(item, "面包店"), code=CROP))
    make_run(folder / "runs/off", lambda item, _: episode(item.gold if int(item.item_id) % 3 else "Z"), mode="think")
    make_run(folder / "runs/charts", lambda item, _: episode(item.gold), benchmark="chartqa")
    for name in ("off", "charts"):
        write_run_report(folder / "runs" / name, folder / "runs" / name / "report.html")
    write_run_report(folder / "runs/on", folder / "runs/on/report.html", against=folder / "runs/off", episodes=6)
    write_leaderboard([folder / "runs"], folder)
    write_episodes_page(folder / "runs/on", folder / "episodes.html", limit=3)
    write_family(load_family("mark"), folder / "quickstart/data", amounts=Amounts(sft=1, rl_train=1, benchmark=16))
    kinds = {"base": (), "sft": ("crop", "direct"), "rl": ("crop",)}
    data = folder / "quickstart/data/benchmark.tsv"
    for name, wrong in (("base", range(16)), ("sft", range(0, 16, 2)), ("rl", (1,))):
        evaluated(folder / "quickstart/eval" / name, data, lambda number, wrong=wrong: number not in wrong, kinds[name].__contains__)
    metrics = "".join(f'{{"step": {step}, "episode/score/mean": 0.{step}, "episode/acc/mean": 0.{step + 1}}}\n' for step in range(1, 8))
    (folder / "quickstart/rl").mkdir()
    (folder / "quickstart/rl/metrics.jsonl").write_text(metrics)
    write_report(folder / "quickstart", folder / "quickstart/report.html")
    return folder


def show(page, address):
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=f"file://{address}")
    page.wait_for("document.readyState === 'complete' && document.querySelector('h1') !== null")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_every_page_is_legible_at_every_size_in_both_themes(page, folder, width, theme):
    look(page, width=width, height=900, theme=theme)
    for name in PAGES:
        show(page, folder / name)
        assert page.run("document.documentElement.scrollWidth") <= width, name
        assert page.run(CONTRASTS) == [], name
        assert page.run(BROKEN) == [], name
        background = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(background) < 128) == (theme == "dark"), name


def test_the_leaderboard_is_short_and_leads_to_reports_with_the_published_numbers_beside(page, folder):
    look(page, width=420, height=900, theme="light")
    show(page, folder / "leaderboard.html")
    assert page.run("document.documentElement.scrollHeight") < 1200
    assert "DeepEyesV2-7B" in page.run("document.querySelector('table').innerText")
    page.run("document.querySelector('td a').click()")
    page.wait_for("document.querySelector('h1')?.textContent.startsWith('ChartQA: ')")


def test_a_chart_says_the_values_under_the_pointer_and_as_a_table(page, folder):
    look(page, width=1400, height=900, theme="light")
    show(page, folder / "quickstart/report.html")
    script = "(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelectorAll('.step')[2].querySelector('rect').getBoundingClientRect())"
    page.run("document.querySelector('figure').scrollIntoView()")
    x, y = page.run(script)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert page.run("[...document.querySelectorAll('.step text')].filter((one) => one.checkVisibility({visibilityProperty: true})).map((one) => one.textContent)") == [
        "3: reward 0.3, accuracy 0.4"
    ]
    page.run("document.querySelector('figure summary').click()")
    assert "0.3" in page.run("document.querySelector('figure tbody').innerText")


def test_a_number_leads_to_the_episodes_behind_it_and_images_are_put_in_when_one_is_opened(page, folder):
    look(page, width=1400, height=900, theme="light")
    show(page, folder / "runs/on/report.html")
    page.wait_for("document.querySelectorAll('#list tr').length === 12")  # all of them, as the page says
    assert page.run("document.images.length") == 0
    page.run("document.getElementById('embedded').click()")
    page.wait_for("document.querySelectorAll('#list tr').length === 6")
    # A number of a category leads to what it counts.
    page.run("document.querySelector('a.behind[data-category][data-result=wrong]').focus()")
    page.press_enter()
    page.wait_for("[...document.querySelectorAll('#list tr')].every((row) => row.cells[2].textContent === 'wrong')")
    page.run("document.querySelector('#list a').focus()")
    page.press_enter()
    page.wait_for("document.images.length === 2 && [...document.images].every((image) => image.naturalWidth > 0)")
    assert "display(image_1.crop" in page.run("document.getElementById('episode').innerText")
    assert page.run("document.activeElement.id") == "episode"
    assert page.run("document.querySelector('#episode > p a').href").startswith("http://127.0.0.1:8765/#/?text=")
    # One that was left out of the page says where it can be seen.
    page.run("location.hash = '#' + rows.find((row) => !cards[row[0]])[0]")
    page.wait_for("document.getElementById('episode').innerText.includes('deepeyes view')")


def test_an_item_that_another_run_has_otherwise_leads_to_its_episode_in_both_reports(page, folder):
    show(page, folder / "runs/on/report.html")
    item = page.run("document.querySelector('.paired a').textContent")
    page.run("document.querySelector('.paired a').click()")
    page.wait_for(f"location.hash === '#{item}' && document.getElementById('episode').innerText")
    page.run("document.querySelector('.paired a + a').click()")
    page.wait_for(f"location.pathname.endsWith('/off/report.html') && document.querySelector('#episode h3')?.textContent.startsWith('{item}')")
