"""What tests of several files share, since starting it takes seconds."""

import pytest

from tests.browser import browser, chromium


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The tab of one Chromium for all tests; whoever changes its size or its colours puts them back."""
    if chromium() is None:
        pytest.skip("needs a Chromium: install chromium, chromium-browser or google-chrome")
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page
