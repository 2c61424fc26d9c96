"""What tests of scoring share: a grader with a judge made of a list, an item, and whether an answer is right."""

import httpx

from evaluation.benchmarks import Item, load_benchmark
from evaluation.scoring.grader import Grader, Prediction
from evaluation.scoring.profiles import PROFILES
from judge.client import Judge, JudgeSettings
from tests.queued_transport import queued_transport

HEAD, PACKAGE, FORK = (PROFILES[name] for name in ("vlmevalkit", "ms-vlmeval", "deepeyesv2-fork"))


def grader(*replies, profile=HEAD, parity=False):
    answers = [httpx.Response(200, json={"choices": [{"message": {"content": text}}]}) for text in replies]
    transport, _ = queued_transport(*answers)
    urls = ("http://a/v1",) if replies else ()
    return Grader(profile, Judge(JudgeSettings(base_urls=urls, attempts=1), transport=transport), parity=parity)


def item(gold, *, category="", choices=None, question="q?", **fields):
    return Item(item_id="1", question=question, gold=gold, category=category, choices=choices or {}, fields=fields)


async def correct(benchmark, one, answer, made=None):
    return (await load_benchmark(benchmark).grade(one, Prediction(answer, answer), made or grader())).correct
