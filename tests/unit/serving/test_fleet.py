"""Several model servers look like one to the client above them."""

import httpx
import pytest

from serving.fleet import Fleet


async def ask(fleet, count=1):
    async with httpx.AsyncClient(transport=fleet) as client:
        return [await client.post("http://a/v1/chat/completions", json={}) for _ in range(count)]


async def test_requests_go_to_the_least_loaded_server_and_leave_a_broken_one_alone():
    seen = []

    def handle(request):
        seen.append(str(request.url))
        if request.url.host == "b":
            raise httpx.ConnectError("away")
        return httpx.Response(200, json={"ok": True}, headers={"content-encoding": "identity"})

    fleet = Fleet(["http://a/v1", "http://b:81/v1"], max_in_flight=8, inner=httpx.MockTransport(handle))
    answers = []
    async with httpx.AsyncClient(transport=fleet) as client:
        for _ in range(12):
            try:
                answers.append((await client.post("http://a/v1/chat/completions", json={})).json())
            except httpx.ConnectError:
                answers.append(None)
    assert sum(answer is None for answer in answers) <= 3
    assert seen.count("http://b:81/v1/chat/completions") <= 3
    assert answers[-1] == {"ok": True}


async def test_with_no_server_left_it_says_so_instead_of_waiting_for_ever():
    def away(request):
        raise httpx.ConnectError("away")

    fleet = Fleet(["http://a/v1"], max_in_flight=8, patience_s=0.1, inner=httpx.MockTransport(away))
    for _ in range(4):
        with pytest.raises(httpx.ConnectError):
            await ask(fleet)
    assert fleet.down == "no model server answered for 0.1 s"


async def test_many_refusals_mean_fewer_requests_at_once():
    fleet = Fleet(["http://a/v1"], max_in_flight=64, inner=httpx.MockTransport(lambda request: httpx.Response(429)))
    async with httpx.AsyncClient(transport=fleet) as client:
        for _ in range(40):
            assert (await client.post("http://a/v1/chat/completions", json={})).status_code == 429
    assert fleet.limit < 40
