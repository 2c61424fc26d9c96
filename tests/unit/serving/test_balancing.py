"""Who is asked next, and how many at once."""

import asyncio

import httpx
import pytest

from serving.balancing import NoServer, Servers


async def take(servers, patience_s=1.0):
    async with servers.slot(patience_s=patience_s) as server:
        return server


async def test_the_least_loaded_server_is_asked_and_a_failing_one_last():
    servers = Servers(["http://a", "http://b"], max_in_flight=8)
    async with servers.slot(patience_s=1) as first, servers.slot(patience_s=1) as second:
        assert {first.url, second.url} == {"http://a", "http://b"}
    servers.all[0].failed()
    assert [(await take(servers)).url for _ in range(3)] == ["http://b"] * 3


async def test_a_server_that_fails_three_times_is_left_alone_and_then_tried_with_one_request():
    servers = Servers(["http://a"], max_in_flight=8)
    for _ in range(3):
        servers.all[0].failed()
    with pytest.raises(NoServer, match=r"no server answered for 0\.1 s"):
        await take(servers, patience_s=0.1)
    servers.all[0].closed_until = 0.0
    async with servers.slot(patience_s=0.1):
        with pytest.raises(NoServer):
            await take(servers, patience_s=0.1)
        servers.succeeded(servers.all[0])
    assert await asyncio.gather(*(take(servers) for _ in range(4)))


async def test_a_pause_grows_and_ends_by_itself():
    servers = Servers(["http://a"], max_in_flight=8)
    for _ in range(3):
        servers.all[0].failed()
    assert servers.all[0].pause_s == 1.0
    servers.all[0].failed()
    assert servers.all[0].pause_s == 2.0
    servers.all[0].closed_until = asyncio.get_running_loop().time() + 0.2
    async with asyncio.timeout(2):
        assert (await take(servers, patience_s=5)).url == "http://a"


async def test_never_more_than_allowed_are_under_way_and_every_waiter_gets_its_turn():
    servers, now, most = Servers(["http://a", "http://b"], max_in_flight=5), 0, 0

    async def one():
        nonlocal now, most
        async with servers.slot(patience_s=1):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(one() for _ in range(500)))
    assert most == 5


async def test_a_cancelled_waiter_takes_no_turn_from_the_others():
    servers = Servers(["http://a"], max_in_flight=1)

    async def one():
        async with servers.slot(patience_s=1):
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(one()) for _ in range(40)]
    await asyncio.sleep(0.005)
    for task in tasks[1::2]:
        task.cancel()
    async with asyncio.timeout(5):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(result is None for result in done) >= 20


async def test_concurrency_shrinks_while_much_is_refused_and_grows_again():
    servers = Servers(["http://a"], max_in_flight=64)
    for _ in range(16):
        servers.refused()
    assert servers.limit == 44
    for _ in range(500):
        servers.refused()
    assert servers.limit == 1
    for _ in range(3000):
        servers.succeeded(servers.all[0])
    assert servers.limit == 64


async def test_single_refusals_do_not_slow_all_others():
    servers = Servers(["http://a"], max_in_flight=64)
    for number in range(1, 2001):
        if number % 8 == 0:
            servers.refused()
        else:
            servers.succeeded(servers.all[0])
    assert servers.limit == 64


@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 413, 422])
def test_a_server_that_answers_is_well_whatever_it_thinks_of_the_question(status):
    servers = Servers(["http://a"], max_in_flight=4)
    servers.all[0].failed()
    assert servers.answered(servers.all[0], status) is True
    assert servers.all[0].failures == 0


@pytest.mark.parametrize(("status", "failures"), [(408, 1), (429, 0), (500, 1), (502, 1), (503, 1), (504, 1)])
def test_a_server_that_is_only_busy_is_not_broken(status, failures):
    servers = Servers(["http://a"], max_in_flight=4)
    assert servers.answered(servers.all[0], status) is False
    assert servers.all[0].failures == failures


@pytest.mark.parametrize(("event", "shrinks"), [(429, True), (503, True), (500, False), ("late", True), ("away", False)])
def test_only_an_answer_of_too_much_or_too_late_makes_requests_fewer(event, shrinks):
    errors = {"late": httpx.ReadTimeout("late"), "away": httpx.ConnectError("away")}
    servers = Servers(["http://a"], max_in_flight=64)
    for _ in range(40):
        if event in errors:
            servers.did_not_answer(servers.all[0], errors[event])
        else:
            servers.answered(servers.all[0], event)
    assert (servers.limit < 64) is shrinks
