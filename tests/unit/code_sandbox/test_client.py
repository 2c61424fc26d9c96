import hashlib

import httpx
import msgpack
import pytest

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxRequestRefused, SandboxUnavailable, SessionLost
from code_sandbox.wire import ExecuteResult, MissingBlobs, SessionInfo
from tests.queued_transport import queued_transport


def client(*answers, urls="http://a,http://b", **settings) -> tuple[SandboxClient, list[httpx.Request]]:
    transport, seen = queued_transport(*answers)
    return SandboxClient(urls, transport=transport, **{"wait_s": 0.2, **settings}), seen


def ok(result: ExecuteResult | None = None) -> httpx.Response:
    opened = SessionInfo(session_id="s", server_id="a", lease_s=60, cells=0)
    return httpx.Response(200 if result else 201, content=msgpack.packb((result or opened).model_dump()))


def ran(text: str = "") -> httpx.Response:
    return ok(ExecuteResult(status="ok", stdout=text))


async def test_a_session_stays_on_its_server():
    sandbox, seen = client(*[ok() if n % 3 == 0 else ran() for n in range(30)])
    by_session = {}
    for number in range(10):
        session = await sandbox.open(session_id=f"s{number}")
        await session.execute("1")
        await session.execute("2")
        by_session[number] = {request.url.host for request in seen[-3:]}
    assert all(len(hosts) == 1 for hosts in by_session.values())
    assert {host for hosts in by_session.values() for host in hosts} == {"a", "b"}


async def test_every_client_places_a_session_alike_and_servers_of_this_machine_come_first():
    placed = []
    for urls in ("http://a,http://b,http://c", "http://c,http://a,http://b"):
        sandbox, seen = client(*[ok()] * 9, urls=urls)
        for number in range(9):
            await sandbox.open(session_id=f"s{number}")
        placed.append([request.url.host for request in seen])
    assert placed[0] == placed[1]
    sandbox, seen = client(*[ok()] * 9, urls="http://a,http://127.0.0.1:8000,http://b")
    for number in range(9):
        await sandbox.open(session_id=f"s{number}")
    assert {request.url.host for request in seen} == {"127.0.0.1"}


async def test_a_session_that_finds_no_room_on_one_server_opens_on_the_next():
    full = httpx.Response(429, json={"message": "full"})
    sandbox, seen = client(full, ok(), ran())
    session = await sandbox.open()
    await session.execute("1")
    assert seen[0].url.host != seen[1].url.host == seen[2].url.host


async def test_every_cell_says_how_many_answers_came_before_it():
    sandbox, seen = client(ok(), ran(), httpx.ReadTimeout("lost"), ran(), ran())
    session = await sandbox.open()
    await session.execute("a")
    with pytest.raises(SandboxUnavailable, match="whether the cell ran is not known"):
        await session.execute("b")
    await session.execute("c")
    await session.execute("d")
    assert [msgpack.unpackb(request.content)["cell"] for request in seen[1:]] == [0, 1, 1, 2]


async def test_images_are_sent_once_and_byte_for_byte_to_a_server_that_lacks_them():
    data = bytes(range(256))
    name = hashlib.sha256(data).hexdigest()
    missing = httpx.Response(409, json=MissingBlobs(message="upload", missing=[name]).model_dump())
    sandbox, seen = client(missing, httpx.Response(204), ok(), ok(), urls="http://a")
    await sandbox.open([data, data])
    await sandbox.open([data])
    assert [request.method for request in seen] == ["POST", "PUT", "POST", "POST"]
    assert seen[1].url.path == f"/v1/blobs/{name}"
    assert seen[1].content == data
    assert msgpack.unpackb(seen[2].content)["images"] == [name, name]


async def test_a_token_is_sent_with_every_request():
    sandbox, seen = client(ok(), ran(), token="secret")
    await (await sandbox.open()).execute("1")
    assert {request.headers["authorization"] for request in seen} == {"Bearer secret"}


async def test_a_full_server_is_waited_for_and_then_is_an_outage():
    full = httpx.Response(429, json={"message": "full"}, headers={"Retry-After": "1"})
    sandbox, seen = client(full, full, ok())
    await sandbox.open()
    assert len(seen) == 3
    sandbox, _ = client(*[full] * 50)
    with pytest.raises(SandboxUnavailable, match="no server did it within 0.2 s: http://.: full"):
        await sandbox.open()


async def test_code_is_never_sent_twice():
    sandbox, seen = client(ok(), httpx.ReadTimeout("lost"))
    session = await sandbox.open()
    with pytest.raises(SandboxUnavailable):
        await session.execute("charge_card()")
    assert len(seen) == 2


@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_code_that_cannot_have_arrived_is_sent_again(fault):
    sandbox, seen = client(ok(), fault("refused"), ran("x"))
    session = await sandbox.open()
    assert (await session.execute("x")).stdout == "x"
    assert len(seen) == 3


@pytest.mark.parametrize(("status", "error"), [(404, SessionLost), (422, SandboxRequestRefused), (500, SandboxUnavailable)])
async def test_answers_become_typed_errors(status, error):
    sandbox, _ = client(ok(), httpx.Response(status, json={"message": "why"}))
    session = await sandbox.open()
    with pytest.raises(error, match="why"):
        await session.execute("x")


@pytest.mark.parametrize("urls", ["", " , ", [], "localhost:8000", "ftp://a"])
def test_what_is_no_url_of_a_sandbox_is_refused(urls):
    with pytest.raises(ValueError, match="sandbox URL"):
        SandboxClient(urls)


async def test_the_session_of_a_dead_server_is_closed_at_another_one_and_not_waited_for_long():
    sandbox, seen = client(ok(), httpx.ConnectError("refused"), httpx.Response(204))
    await (await sandbox.open()).close()
    assert [request.method for request in seen] == ["POST", "DELETE", "DELETE"]
    assert seen[0].url.host == seen[1].url.host != seen[2].url.host
