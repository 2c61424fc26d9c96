"""Opening a page of the web: fetched within bounds, never from inside our own network, and reduced to readable text."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urljoin

import httpx

from agent.search import Page
from agent.search.web import WebClient

MAX_PAGE_BYTES = 3_000_000
_MAX_REDIRECTS = 5
_READABLE = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown")


class _Unreadable(Exception):
    """The page's fault; said to the model."""


async def read_web_page(web: WebClient, link: str, *, allow_private: bool = False) -> Page:
    """Fetch a page and take its text out. Another site's trouble is told to the model; it is no outage of ours.

    Only http and https, only public addresses (checked for every redirect, and the connection goes to the address that was
    checked), at most 3 MB, only text.

    Args:
        web: Whose limits hold.
        link: As a search returned it.
        allow_private: Lets tests and intranets through.

    Raises:
        BudgetExhausted: The calls of the run are spent.
    """

    async def once() -> Page:
        try:
            async with asyncio.timeout(web.settings.timeout_s):
                text, html, address = await _fetch(web.http, link, allow_private=allow_private)
        except _Unreadable as error:
            return Page("", "", str(error))
        except TimeoutError:
            return Page("", "", f"the site took longer than {web.settings.timeout_s:g} s")
        except (httpx.TransportError, OSError) as error:
            return Page("", "", f"the site does not answer ({type(error).__name__})")
        # Outside the time limit: how long we take to read a page, or to import what reads it, is not the site's doing.
        return await asyncio.to_thread(readable, text, address) if html else Page(address, text.strip())

    return await web.attempt(once, free=True)


async def _fetch(http: httpx.AsyncClient, link: str, *, allow_private: bool) -> tuple[str, bool, str]:
    """(text, whether it is HTML, the address after redirects)."""
    for _ in range(_MAX_REDIRECTS + 1):
        url, extensions, headers = await _pinned(link, allow_private=allow_private)
        async with http.stream("GET", url, headers=headers, extensions=extensions, follow_redirects=False) as response:
            if response.is_redirect:
                link = urljoin(link, response.headers["Location"])
                continue
            if response.status_code != 200:
                raise _Unreadable(f"the page answers HTTP {response.status_code}")
            kind = response.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower()
            if kind not in _READABLE:
                raise _Unreadable(f"the page is {kind}, which cannot be read as text")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_PAGE_BYTES:
                    break
            text = bytes(content[:MAX_PAGE_BYTES]).decode(response.charset_encoding or "utf-8", "replace")
        return text, "html" in kind, link
    raise _Unreadable(f"the page redirects more than {_MAX_REDIRECTS} times")


async def _pinned(link: str, *, allow_private: bool) -> tuple[httpx.URL, dict[str, str], dict[str, str]]:
    """The URL with its host's checked address in place of its name, so that no second look-up can lead elsewhere."""
    try:
        url = httpx.URL(link)
    except (httpx.InvalidURL, TypeError) as error:
        raise _Unreadable("the link is no URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise _Unreadable("only http and https links can be opened")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port or None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Unreadable("the site's name is unknown") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not allow_private and not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses):
        raise _Unreadable("the link leads into a private network")
    return url.copy_with(host=addresses[0]), {"sni_hostname": url.host}, {"Host": url.netloc.decode()}


def readable(html: str, link: str) -> Page:
    """Title and main text of an HTML page."""
    import trafilatura

    found: Any = trafilatura.bare_extraction(html, url=link, include_comments=False, favor_recall=True, with_metadata=True)
    if found is None or not found.text:
        return Page("", "", "the page has no readable text")
    return Page(found.title or link, found.text)
