"""What the nodes of a run share through a real Redis: answers, and the account."""

import asyncio

import httpx
import pytest
import redis

from agent.errors import BudgetExhausted, ToolUnavailable
from agent.search.gateway import open_search
from judge.client import Judge, JudgeSettings
from serving.processes import redis_server

pytestmark = pytest.mark.services


class Counting:
    def __init__(self):
        self.queries = []

    def __call__(self, request):
        self.queries.append(request.url.params["q"])
        return httpx.Response(200, json={"results": [{"title": request.url.params["q"], "url": "u", "content": ""}]})


def node(url, counting, **block):
    given = {"provider": "searxng", "base_url": "http://s.test", "shared_cache": url, "price_usd": 0.1, **block}
    return open_search(given, transport=httpx.MockTransport(counting))


async def test_a_question_that_one_node_asked_is_answered_to_all(redis_url):
    counting = Counting()
    one, two = node(redis_url, counting, run="shared"), node(redis_url, counting, run="shared")
    first = await one.search("panda", max_hits=3)
    assert await two.search("Panda ", max_hits=3) == first
    assert counting.queries == ["panda"]
    assert two.counters["from_shared_cache"] == 1
    client = redis.Redis.from_url(redis_url)
    (key,) = [key for key in client.keys("deepeyes:search:*") if b"spent" not in key]
    assert 0 < client.ttl(key) <= 7 * 86400
    client.set(key, b"not json")
    three = node(redis_url, counting, run="shared")
    assert await three.search("panda", max_hits=3) == first
    assert counting.queries == ["panda", "panda"], "a broken entry is asked again"
    client.close()
    for search in (one, two, three):
        await search.aclose()


async def test_all_nodes_together_never_exceed_the_budget(redis_url):
    counting = Counting()
    nodes = [node(redis_url, counting, run="budget", max_calls=10, max_cost_usd=0.75) for _ in range(4)]
    asked = (search.search(f"{number}-{index}", max_hits=1) for number in range(10) for index, search in enumerate(nodes))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert len(counting.queries) == 7, "ten calls were allowed, and money for seven"
    assert sum(isinstance(answer, BudgetExhausted) for answer in answers) == 33
    assert await nodes[0].spent() == (7, pytest.approx(0.7))
    for search in nodes:
        await search.aclose()


async def test_without_redis_answers_still_come_unless_money_is_at_stake(tmp_path):
    counting = Counting()
    with redis_server(tmp_path) as url:
        search = node(url, counting)
        await search.search("before", max_hits=1)
    with pytest.raises(ToolUnavailable, match="account of this run's searches is out of reach"):
        await search.search("after", max_hits=1)
    assert counting.queries == ["before"]
    await search.aclose()


async def test_verdicts_are_shared_through_redis_and_missed_without_harm_when_it_is_away(tmp_path):
    asked = []

    def answer(request):
        asked.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "CORRECT"}}]})

    def judge(url):
        return Judge(JudgeSettings(base_urls=("http://j/v1",), cache=url), transport=httpx.MockTransport(answer))

    with redis_server(tmp_path) as url:
        one, two = judge(url), judge(url)
        assert (await one.judge("crimson", "red", question="q")).correct is True
        assert (await two.judge("crimson", "red", question="q")).from_cache
        assert len(asked) == 1
    assert (await two.judge("crimson", "red", question="q")).correct is True
    assert len(asked) == 2
    for closing in (one, two):
        await closing.aclose()
