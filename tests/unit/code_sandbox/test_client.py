import json

import httpx
import pytest

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxRequestRefused, SandboxUnavailable, SessionLost
from code_sandbox.server.sessions import network_refusal, truncate
from code_sandbox.server.settings import Settings
from code_sandbox.wire import CreateSession, ExecuteResult
from tests.queued_transport import queued_transport


def client(*answers, urls="http://a,http://b", **settings) -> tuple[SandboxClient, list[httpx.Request]]:
    transport, seen = queued_transport(*answers)
    return SandboxClient(urls, transport=transport, **{"wait_s": 0.2, **settings}), seen


def ok(result: ExecuteResult | None = None) -> httpx.Response:
    return httpx.Response(201, text="{}") if result is None else httpx.Response(200, text=result.model_dump_json())


async def test_a_session_stays_on_its_server():
    sandbox, seen = client(*[ok() if n % 3 == 0 else ok(ExecuteResult(status="ok")) for n in range(30)])
    for number in range(10):
        session = await sandbox.open(session_id=f"s{number}")
        await session.execute("1")
        await session.execute("2")
    by_session = {}
    for request in seen:
        name = json.loads(request.content).get("session_id") or request.url.path.split("/")[3]
        by_session.setdefault(name, set()).add(request.url.host)
    assert all(len(hosts) == 1 for hosts in by_session.values())
    assert {host for hosts in by_session.values() for host in hosts} == {"a", "b"}


async def test_a_full_server_is_waited_for_and_then_is_an_outage():
    full = httpx.Response(429, json={"message": "full"}, headers={"Retry-After": "1"})
    sandbox, seen = client(full, full, ok())
    await sandbox.open()
    assert len(seen) == 3
    sandbox, _ = client(*[full] * 50)
    with pytest.raises(SandboxUnavailable, match="no room within 0.2 s: full"):
        await sandbox.open()


async def test_code_is_never_sent_twice():
    sandbox, seen = client(ok(), httpx.ReadTimeout("lost"))
    session = await sandbox.open()
    with pytest.raises(SandboxUnavailable):
        await session.execute("charge_card()")
    assert len(seen) == 2


async def test_code_that_cannot_have_arrived_is_sent_again():
    sandbox, seen = client(ok(), httpx.ConnectError("refused"), ok(ExecuteResult(status="ok", stdout="x")))
    session = await sandbox.open()
    assert (await session.execute("x")).stdout == "x"
    assert len(seen) == 3


@pytest.mark.parametrize(("status", "error"), [(404, SessionLost), (422, SandboxRequestRefused), (500, SandboxUnavailable)])
async def test_answers_become_typed_errors(status, error):
    sandbox, _ = client(ok(), httpx.Response(status, json={"message": "why"}))
    session = await sandbox.open()
    with pytest.raises(error, match="why"):
        await session.execute("x")


@pytest.mark.parametrize("urls", ["", " , ", []])
def test_no_url_is_refused(urls):
    with pytest.raises(ValueError, match="no sandbox URL"):
        SandboxClient(urls)


async def test_images_survive_the_wire_byte_for_byte():
    data = bytes(range(256))
    sandbox, seen = client(ok())
    await sandbox.open([data])
    assert CreateSession.model_validate_json(seen[0].content).images == [data]


def test_cut_output_says_so():
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "abc\n[output cut at 3 characters]"


@pytest.mark.parametrize("bad", [{"max_sessions": 0}, {"lease_s": 0}, {"max_images": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Settings(**bad)


def test_where_the_network_cannot_be_cut_a_server_starts_only_if_told_so():
    assert network_refusal(can_be_cut=True, required=True) is None
    assert network_refusal(can_be_cut=False, required=False) is None
    assert "accept it with --allow-network" in network_refusal(can_be_cut=False, required=True)
