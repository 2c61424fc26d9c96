"""Opening pages of the web: what is read, what is refused, and what a page can do to us."""

import asyncio
import gzip

import httpx
import pytest

from agent.search import Page
from agent.search.page_reader import PageReader, decoded, readable
from agent.search.pages import MAX_PAGE_BYTES, is_public, read_web_page
from agent.search.web import WebClient, WebSettings
from tests.misbehaving_server import misbehaving_server


@pytest.fixture(scope="module")
def server():
    with misbehaving_server() as running:
        yield running



async def page(server, path, *, allow_private=True, timeout_s=60.0) -> Page:
    client = WebClient("searxng", WebSettings(attempts=1, timeout_s=timeout_s, max_cost_usd=0.0), price_usd=1.0)
    try:
        return await read_web_page(client, f"{server.url}{path}", allow_private=allow_private)
    finally:
        await client.aclose()


async def test_a_page_becomes_readable_text_through_redirects(server):
    for path in ("/page", "/hop"):
        found = await page(server, path)
        assert found.title == "Pandas"
        assert found.text.count("eats bamboo") == 8
        assert "menu" not in found.text


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/nothing", "HTTP 404"), ("/loop", "redirects more than 5 times"), ("/binary", "application/pdf"),
        ("/reset", "does not answer"), ("/status429", "HTTP 429"),
    ],
)  # fmt: skip
async def test_a_page_that_cannot_be_read_says_why(server, path, problem):
    assert problem in (await page(server, path)).problem


async def test_a_site_that_is_too_slow_is_named(server):
    assert "took longer than 0.5 s" in (await page(server, "/slow", timeout_s=0.5)).problem


async def test_a_page_without_end_is_cut(server):
    assert len((await page(server, "/huge")).text) <= MAX_PAGE_BYTES


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/", "http://192.168.1.1/", "file:///etc/passwd", "ftp://example.org/x", "javascript:alert(1)", "http://", "no link",
        "http://no-such-name.invalid/", "http://[broken/", "http://2130706433/", "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::a00:1]/", "http://[2002:7f00:1::]/", "http://[2001:0:7f00:1::]/",
        "http://[fec0::1]/", "http://[ff0e::1]/", "http://[::127.0.0.1]/", "http://[::ffff:10.0.0.1]/", "http://[fd00::1]/",
        "http://224.0.0.1/", "http://240.0.0.1/", "http://192.88.99.1/", "http://100.64.0.1/", "http://192.0.0.8/",
    ],
)  # fmt: skip
async def test_the_inside_of_our_own_network_cannot_be_opened(link):
    client = WebClient("searxng", WebSettings(attempts=1))
    found = await read_web_page(client, link)
    assert found.problem
    assert found.text == ""
    await client.aclose()


async def test_a_redirect_to_the_inside_is_refused_too():
    asked = []

    def outside(request):
        asked.append(request.url.host)
        return httpx.Response(302, headers={"Location": "http://127.0.0.1/secret"})

    client = WebClient("searxng", WebSettings(attempts=1), transport=httpx.MockTransport(outside))
    assert "private network" in (await read_web_page(client, "http://93.184.215.14/")).problem
    assert asked == ["93.184.215.14"]
    await client.aclose()


def test_a_page_without_text_says_so():
    assert readable("<html><body><script>x()</script></body></html>", "http://x/").problem == "the page has no readable text"


def test_addresses_of_the_open_network_are_public():
    for address in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"):
        assert is_public(address), address


def answering(*responses):
    """A client of a site that gives these answers, one after the other, and then the last."""
    left = list(responses)
    transport = httpx.MockTransport(lambda request: left.pop(0) if len(left) > 1 else left[0])
    return WebClient("searxng", WebSettings(attempts=1, timeout_s=60), transport=transport)


PARAGRAPHS = "<html><head><title>熊猫</title></head><body>" + "".join(f"<p>{n} 大熊猫吃竹子，住在山里。</p>" for n in range(9))
HTML = {"Content-Type": "text/html"}


def packed(data, times=1):
    return gzip.compress(data) if times == 1 else gzip.compress(packed(data, times - 1))


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (httpx.Response(304, headers=HTML), "HTTP 304"),
        (httpx.Response(302, headers={"Location": "data:text/html,x"}), "cannot be read"),
        (httpx.Response(302, headers={"Location": "http://[broken/"}), "cannot be read"),
        (httpx.Response(200, headers=HTML | {"Content-Encoding": "gzip, gzip, gzip"}, content=b""), "encoded as 'gzip, gzip, gzip'"),
        (httpx.Response(200, headers=HTML | {"Content-Encoding": "zstd"}, stream=httpx.ByteStream(b"x")), "encoded as 'zstd'"),
        (httpx.Response(200, headers=HTML | {"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")), "and is not"),
    ],
    ids=["304", "data", "broken", "thrice", "zstd", "no gzip"],
)  # fmt: skip
async def test_an_answer_that_is_no_page_is_told_to_the_model(response, found):
    client = answering(response)
    assert found in (await read_web_page(client, "http://93.184.215.14/")).problem
    await client.aclose()


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "undefined", "zip", "no-such", "utf-7", "utf-8\x00"])
async def test_an_odd_charset_ends_nothing(charset):
    headers = {"Content-Type": f"text/html; charset={charset}"}
    client = answering(httpx.Response(200, headers=headers, stream=httpx.ByteStream(PARAGRAPHS.encode())))
    found = await read_web_page(client, "http://93.184.215.14/")
    assert found.title == "熊猫"
    assert found.text.count("竹子") == 9
    await client.aclose()


def test_a_page_that_names_its_own_encoding_is_read_in_it():
    text = "<html><head><meta charset='gb18030'><title>熊猫</title>"
    assert decoded(text.encode("gb18030"), None) == text
    assert decoded(text.encode("utf-8"), "utf-8") == text
    assert decoded(b"\xff\xfe", "no such") == "\ufffd\ufffd"


async def test_a_small_file_that_unpacks_to_much_is_cut():
    bomb = packed(PARAGRAPHS.encode() + b" " * 50_000_000)
    client = answering(httpx.Response(200, headers=HTML | {"Content-Encoding": "gzip"}, stream=httpx.ByteStream(bomb)))
    found = await read_web_page(client, "http://93.184.215.14/")
    assert found.title == "熊猫"
    await client.aclose()


async def test_a_page_that_takes_long_to_read_is_no_outage_of_its_source():
    """A reader takes longer to start than this source may take to answer."""
    body = httpx.ByteStream(PARAGRAPHS.encode())
    site = httpx.MockTransport(lambda _: httpx.Response(200, headers=HTML, stream=body))
    client = WebClient("searxng", WebSettings(attempts=1, deadline_s=0.2), transport=site)
    assert (await read_web_page(client, "http://93.184.215.14/")).title == "熊猫"
    await client.aclose()


async def test_pages_that_cannot_be_read_in_time_stop_no_others(monkeypatch):
    """200,000 attributes, and a page of links alone: each took a minute of a thread that nobody could end."""
    monkeypatch.setattr("agent.search.page_reader._WITHIN_S", 2.0)
    attributes = b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">x</p></body></html>"
    links = b"<html><body>" + b'<a href="/x">y</a>' * 150_000
    reader = PageReader()
    bad = [reader.read(page, html=True, charset=None, link="http://x/") for page in (attributes, links) * 3]
    for found in await asyncio.gather(*bad):
        assert found.problem or found.text
    monkeypatch.undo()
    assert (await reader.read(PARAGRAPHS.encode(), html=True, charset=None, link="http://x/")).title == "熊猫"
    await reader.aclose()
