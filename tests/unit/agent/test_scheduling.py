import asyncio

import pytest

from agent.scheduling import Slots, for_each


async def test_no_more_episodes_than_allowed_use_a_resource_at_once():
    slots = Slots({"python": 3})
    using = most = 0

    async def use():
        nonlocal using, most
        async with slots.use("python"):
            using += 1
            most = max(most, using)
            await asyncio.sleep(0.001)
            using -= 1

    await asyncio.gather(*(use() for _ in range(20)))
    assert most == 3


async def test_a_slot_is_free_again_after_an_exception_or_a_cancellation():
    slots = Slots({"python": 1})
    with pytest.raises(KeyError):
        async with slots.use("python"):
            raise KeyError
    holder = asyncio.create_task(_hold(slots))
    await asyncio.sleep(0)
    holder.cancel()
    async with asyncio.timeout(1), slots.use("python") as waited_s:
        assert waited_s >= 0


async def _hold(slots):
    async with slots.use("python"):
        await asyncio.sleep(60)


async def test_a_resource_without_a_bound_is_not_waited_for():
    async with Slots({}).use("python") as waited_s:
        assert waited_s == 0.0


def test_a_bound_below_one_is_refused():
    with pytest.raises(ValueError, match="python may be used 0 times"):
        Slots({"python": 0})


async def test_items_are_read_only_as_fast_as_they_are_needed():
    read, running = 0, 0

    def items():
        nonlocal read
        for number in range(50):
            read += 1
            yield number

    async def do(_):
        nonlocal running
        running += 1
        assert read <= 50
        assert running <= 4
        assert read - done <= 5
        await asyncio.sleep(0)
        running -= 1
        finished()

    done = 0

    def finished():
        nonlocal done
        done += 1

    assert await for_each(items(), do, max_in_flight=4)
    assert (read, done) == (50, 50)


async def test_a_run_that_is_to_end_begins_nothing_more_and_finishes_what_is_under_way():
    begun, finished = [], []

    async def do(number):
        begun.append(number)
        await asyncio.sleep(0.01 if number == 3 else 0.02)
        finished.append(number)
        return number != 3

    assert not await for_each(range(100), do, max_in_flight=4)
    assert sorted(begun) == sorted(finished)
    assert len(begun) < 12
