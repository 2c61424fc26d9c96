"""Who may call a server, what of a request is taken in, and which files are images to it."""

import asyncio
import contextlib
import io
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxRequestRefused
from code_sandbox.server import callers
from code_sandbox.server.packed import unpacked
from serving.processes import sandbox_server
from tests.conftest import png

pytestmark = pytest.mark.services
AS_JSON = {"content-type": "application/json"}
BODY = b'{"session_id": "page", "code": "1"}'


@pytest.fixture(scope="module", params=["fork", "jupyter"])
def server(request, redis_url, tmp_path_factory):
    arguments = ("--require-level", "0", "--spare-kernels", "1", "--backend", request.param, "--allowed-host", "sandbox.lan")
    with sandbox_server(tmp_path_factory.mktemp("callers"), redis_url, arguments=arguments) as url:
        yield url


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (AS_JSON, 404),
        (AS_JSON | {"host": "localhost:9"}, 404),
        (AS_JSON | {"host": "sandbox.lan"}, 404),
        (AS_JSON | {"host": "[::1]"}, 404),
        (AS_JSON | {"content-type": "application/json; charset=utf-8"}, 404),
        (AS_JSON | {"host": "rebound.example"}, 421),
        (AS_JSON | {"host": "127.0.0.1.rebound.example"}, 421),
        (AS_JSON | {"origin": "https://other.example"}, 403),
        (AS_JSON | {"origin": "null"}, 403),
        (AS_JSON | {"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
    ],
)
async def test_a_page_of_another_site_reaches_no_route_and_others_do(server, headers, status):
    async with httpx.AsyncClient(base_url=server) as http:
        assert (await http.post("/v1/sessions/none/execute", content=b'{"code": "1"}', headers=headers)).status_code == status
        if status != 404:
            for route in ("/jupyter_sandbox", "/run_jupyter", "/clear_session", "/v1/sessions"):
                assert (await http.post(route, content=BODY, headers=headers)).status_code == status


def test_a_body_of_many_small_values_is_known_without_decoding_it():
    assert callers.has_too_many_values(b"[" + b"[]," * 20_000 + b"1]")
    code = b'{"code": "x = [' + b"1, {}, [], " * 100_000 + b'\\" \\\\", "cell": 3}'
    assert not callers.has_too_many_values(code)
    with pytest.raises(ValueError, match="more than 100 lists and maps"):
        unpacked(b"\xdc\x03\xe8" + b"\x90" * 1000, most_nested=100, longest=1000)
    with pytest.raises(ValueError, match="2000 exceeds max_array_len"):
        unpacked(b"\xdc\x07\xd0" + bytes(2000), most_nested=100, longest=1000)


async def test_half_a_request_is_not_waited_for_and_a_large_head_is_not_kept(server):
    parts = urlsplit(server)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET /health HTTP/1.1\r\n")
    large, large_writer = await asyncio.open_connection(parts.hostname, parts.port)
    large_writer.write(b"GET /health HTTP/1.1\r\nX: " + bytes(60_000) + b"\r\n")
    for _ in range(3):
        large_writer.write(b"X: " + b"x" * 60_000 + b"\r\n")
    # It may hang up before it has read all that was sent.
    with contextlib.suppress(ConnectionError):
        assert (await large.read()).startswith(b"HTTP/1.1 431")
    # Two requests on one connection, with a pause between them, are no half request.
    async with httpx.AsyncClient(base_url=server) as http:
        assert (await http.get("/health")).status_code == 200
        assert await asyncio.wait_for(reader.read(), 30) == b""
        assert (await http.get("/health")).status_code == 200
    for each in (writer, large_writer):
        each.close()
        with contextlib.suppress(OSError):
            await each.wait_closed()


def file_of(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
async def test_six_formats_are_images_to_it(server, kind):
    async with SandboxClient(server) as client:
        session = await client.open([file_of(kind)])
        assert (await session.execute("image_1.size")).result == "(64, 48)"
        await session.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(file_of(kind), "expected PNG, JPEG, WEBP, GIF, BMP or TIFF") for kind in ("EPS", "ICO", "JPEG2000", "PPM", "TGA", "PDF")]
    + [(b"oops", "it begins with b'oops'"), (png(64, 48)[:-40], "cannot be read")],
    ids=["EPS", "ICO", "JPEG2000", "PPM", "TGA", "PDF", "text", "cut"],
)
async def test_others_are_refused_with_what_was_expected(server, data, reason):
    async with SandboxClient(server) as client:
        with pytest.raises(SandboxRequestRefused, match=reason):
            await client.open([data])
