"""A run's report as its reader sees it, in a real headless Chromium."""

import pytest

from evaluation.reports.run_page import write_run_report
from tests.browser import browser, chromium
from tests.recorded_runs import CROP, episode, make_run, right_or

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(chromium() is None, reason="needs a Chromium: install chromium, chromium-browser or google-chrome"),
]


def test_a_number_leads_to_the_episodes_behind_it_and_images_are_put_in_when_one_is_opened(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode(right_or(item), code=CROP))
    write_run_report(tmp_path / "run", tmp_path / "run/report.html", episodes=6)
    (tmp_path / "profile").mkdir()
    with browser(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"file://{tmp_path / 'run/report.html'}")
        page.wait_for("document.querySelectorAll('#list tr').length === 6")
        assert page.run("document.images.length") == 0
        page.run("document.getElementById('embedded').click()")
        page.wait_for("document.querySelectorAll('#list tr').length === 12")
        # The accuracy of a category leads to its right answers.
        page.run("document.querySelectorAll('a.behind')[1].click()")
        page.wait_for("[...document.querySelectorAll('#list tr')].every((row) => row.cells[2].textContent === 'right')")
        page.run("document.querySelector('#list tr').click()")
        page.wait_for("document.images.length === 2 && [...document.images].every((image) => image.naturalWidth > 0)")
        assert "display(image_1.crop" in page.run("document.getElementById('episode').innerText")
        # One that was left out of the page says where it can be seen.
        page.run("document.getElementById('f-category').value = document.getElementById('f-result').value = ''; filter()")
        page.run("[...document.querySelectorAll('#list tr')].find((row) => !row.cells[8].textContent).click()")
        page.wait_for("document.getElementById('episode').innerText.includes('deepeyes view')")
