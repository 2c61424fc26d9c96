"""Opening a page of the web: fetched within bounds, never from inside our own network, and reduced to readable text."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

from agent.search import Page
from agent.search.web import WebClient

MAX_PAGE_BYTES = 3_000_000
_MAX_REDIRECTS = 5
_GZIP = 16
"""Added to zlib's window bits: the stream has gzip's header."""
_INSIDE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23", "fec0::/10", "::/96", "192.88.99.0/24", "192.0.0.0/24",
    )
)  # fmt: skip
"""Taken for public by Python 3.11: translation of IPv4 (RFC 6052, 8215), 6to4 (RFC 3056, 7526), Teredo and other protocols'
addresses (RFC 2928, 6890), site-local (RFC 3879), IPv4-compatible (RFC 4291)."""
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

    async def once() -> Page | _Fetched:
        try:
            async with asyncio.timeout(web.settings.timeout_s):
                return await _fetch(web.http, link, allow_private=allow_private)
        except _Unreadable as error:
            return Page("", "", str(error))
        except TimeoutError:
            return Page("", "", f"the site took longer than {web.settings.timeout_s:g} s")
        except (httpx.HTTPError, OSError) as error:
            return Page("", "", f"the site does not answer ({type(error).__name__})")
        except (httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
            return Page("", "", f"the site's answer cannot be read ({type(error).__name__}: {str(error)[:200]})")

    found = await web.attempt(once, free=True)
    if isinstance(found, Page):
        return found
    # Outside all limits of a request: how long we take to read a page is not the site's doing, and what is too involved for
    # its reader is told to the model; a page must not end an episode as an outage of ours.
    return await web.pages.read(found.content, html=found.html, charset=found.charset, link=found.link)


@dataclass(frozen=True, slots=True)
class _Fetched:
    content: bytes
    html: bool
    charset: str | None
    link: str
    """After redirects."""


async def _fetch(http: httpx.AsyncClient, link: str, *, allow_private: bool) -> _Fetched:
    for _ in range(_MAX_REDIRECTS + 1):
        url, extensions, headers = await _pinned(link, allow_private=allow_private)
        async with http.stream("GET", url, headers=headers, extensions=extensions, follow_redirects=False) as response:
            if response.has_redirect_location:
                link = urljoin(link, response.headers["Location"])
                continue
            if response.status_code != 200:
                raise _Unreadable(f"the page answers HTTP {response.status_code}")
            kind = response.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower()
            if kind not in _READABLE:
                raise _Unreadable(f"the page is {kind[:100]}, which cannot be read as text")
            return _Fetched(await _content(response), "html" in kind, response.charset_encoding, link)
    raise _Unreadable(f"the page redirects more than {_MAX_REDIRECTS} times")


async def _content(response: httpx.Response) -> bytes:
    """The first part of a body; unpacked once, and no further than that part is long."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise _Unreadable(f"the page is encoded as {encoding[:100]!r}, and gzip was all that was asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | _GZIP) if "gzip" in encoding else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        try:
            content += chunk if unpacker is None else unpacker.decompress(chunk, MAX_PAGE_BYTES - len(content))
        except zlib.error as error:
            raise _Unreadable("the page says that it is packed with gzip, and is not") from error
        if len(content) >= MAX_PAGE_BYTES or (unpacker is not None and unpacker.eof):
            break
    return bytes(content[:MAX_PAGE_BYTES])


def is_public(address: str) -> bool:
    """Whether an address is one of the open network, and no other name for one inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    inside = any(ip in network for network in _INSIDE if network.version == ip.version)
    return ip.is_global and not (inside or ip.is_multicast or ip.is_reserved)


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
    if not allow_private and not all(map(is_public, addresses)):
        raise _Unreadable("the link leads into a private network")
    headers = {"Host": url.netloc.decode(), "Accept-Encoding": "gzip"}
    return url.copy_with(host=addresses[0]), {"sni_hostname": url.host}, headers
