"""Caps are promises: what is under way counts at its most, what was never answered stays counted, errors cost nothing."""

import asyncio
import json

import httpx
import pytest

from curation.errors import CurationError, CurationStopped
from curation.metering import Metered
from curation.settings import read_curation
from curation.spending import CapReached, RunAccount, Tokens, spent_by_model
from evaluation.smoke.scripted_model import request_server
from tests.unit.curation.conftest import row
from tests.unit.curation.test_models import models, said

STEPS = [{"sample": {"as": "plain", "with": "base", "mode": "think", "k": 4, "max_reply_tokens": 5}}]
PRICES = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_reply_tokens": 10.0}
EACH = 0.0001  # 50 tokens read and 5 written


@pytest.mark.parametrize(
    ("cap", "message"),
    [
        ({"max_calls": 5}, r"the model 'base' was asked 5 times, max_calls is 5; raise it"),
        (
            {"max_cost_usd": 5 * EACH, "context_tokens": 55, **PRICES},
            r"has cost 0.0005 USD, one more request up to 0.0001, max_cost_usd is 0.0005; raise it",
        ),
    ],
)
def test_a_cap_is_used_up_and_never_passed_and_holds_for_the_next_process_too(bench, cap, message):
    asked = []
    with request_server(lambda body: asked.append(1) or said("red")) as url:
        for _ in range(2):
            with pytest.raises(CurationStopped, match=message):
                bench.run([bench.source("mine", [row(n) for n in range(4)])], STEPS, models=models(url, **cap))
            assert len(asked) == 5
        more = {name: value * 100 if name.startswith("max") else value for name, value in cap.items()}
        bench.run([bench.source("mine", [row(n) for n in range(4)])], STEPS, models=models(url, **more))
    assert len(asked) == 16
    spent = json.loads((bench.directory / "run/run.json").read_text())["models"]["base"]
    assert (spent["calls"], spent["prompt_tokens"], spent["reply_tokens"], spent["unanswered"]) == (16, 800, 80, 0)


def test_a_request_that_the_server_refused_costs_nothing(bench):
    tries = []
    with request_server(lambda body: tries.append(1) or (503 if len(tries) % 2 else said("red"))) as url:
        settings = models(url, max_calls=4, max_in_flight=1, attempts=3)
        bench.run([bench.source("mine", [row(0)])], STEPS, models=settings)
    assert len(tries) == 8


def account(bench, **cap):
    source = {"name": "mine", "path": "in.parquet", "licence": "mit", "group": "x"}
    curation = read_curation(bench.write([source], STEPS, models=models("http://127.0.0.1:9/v1", **cap)))
    return curation, RunAccount(curation)


def send(curation, book, answer):
    """One request through the meter to a server that is a function."""

    async def one():
        meter = Metered(httpx.MockTransport(answer), book, "base", curation.file.models["base"])
        request = httpx.Request("POST", "http://x/v1/chat/completions", json={"messages": [], "max_tokens": 10})
        return await meter.handle_async_request(request)

    return asyncio.run(one())


def test_an_answer_that_never_came_stays_counted_at_the_most_that_it_may_have_cost(bench):
    def late(request):
        raise httpx.ReadTimeout("nothing came", request=request)

    curation, book = account(bench, max_cost_usd=0.001, context_tokens=50, **PRICES)
    with pytest.raises(httpx.ReadTimeout):
        send(curation, book, late)
    spent = spent_by_model(curation)["base"]
    assert (spent["usd"], spent["unanswered"], spent["usd_at_most"]) == (0.0, 1, 0.0001)  # 40 read and 10 written: 0.00014


def test_an_answer_that_does_not_say_what_it_cost_counts_at_its_most(bench):
    curation, book = account(bench, max_cost_usd=0.01, context_tokens=1000, **PRICES)
    send(curation, book, lambda request: httpx.Response(200, json={"choices": []}))
    spent = spent_by_model(curation)["base"]
    assert (spent["calls"], spent["prompt_tokens"], spent["reply_tokens"]) == (1, 990, 10)


def test_a_server_that_could_not_be_reached_cost_nothing(bench):
    def away(request):
        raise httpx.ConnectError("refused", request=request)

    curation, book = account(bench, max_calls=1)
    for _ in range(3):
        with pytest.raises(httpx.ConnectError):
            send(curation, book, away)
    assert spent_by_model(curation)["base"]["unanswered"] == 0


def test_a_request_that_takes_more_than_the_file_allows_for_stops_the_run(bench):
    def answer(request):
        return httpx.Response(200, json={"usage": {"prompt_tokens": 200, "completion_tokens": 10}})

    async def twice():
        meter = Metered(httpx.MockTransport(answer), book, "base", curation.file.models["base"])
        for _ in range(2):
            await meter.handle_async_request(httpx.Request("POST", "http://x/v1/chat/completions", json={}))

    curation, book = account(bench, max_cost_usd=1.0, context_tokens=100, **PRICES)
    with pytest.raises(CapReached, match=r"'base' took 210 tokens, context_tokens is 100; raise it"):
        asyncio.run(twice())


def test_half_a_line_of_the_account_is_passed_over_and_its_request_stays_counted(bench):
    _, book = account(bench, max_calls=2)
    ticket = book.reserve("base", Tokens(calls=1))
    path = bench.directory / "run/spending.jsonl"
    with path.open("ab") as file:
        file.write(b'{"id": "half')
    assert book.reserve("base", Tokens(calls=1))
    assert not book.reserve("base", Tokens(calls=1))
    book.settle(ticket, "base", Tokens())
    assert book.reserve("base", Tokens(calls=1))


@pytest.mark.parametrize("missing", ["usd_per_million_prompt_tokens", "usd_per_million_reply_tokens", "context_tokens"])
def test_a_cap_in_money_needs_prices_and_the_most_tokens_of_a_request(bench, missing):
    cap = {"max_cost_usd": 1.0, "context_tokens": 100, **PRICES}
    del cap[missing]
    with pytest.raises(CurationError, match=f"max_cost_usd needs {missing}; give the prices"):
        account(bench, **cap)
