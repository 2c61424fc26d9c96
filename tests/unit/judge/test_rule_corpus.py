"""Labelled answers, each with its reason. `right` is null where a rule has to be silent: it depends, or only a judge may say."""

import hashlib
import json
from pathlib import Path

import pytest

from judge.rules import RULES_VERSION, Rules
from judge.rules.examples import TABLE, markdown

HERE = Path(__file__).parent
NAMES = ("labelled_pairs", "rule_cases", "plain_answers")
"""Answers of all kinds to questions of benchmarks; what public reports say was judged wrongly, and its neighbours; plain answers."""
CORPORA = {
    name: [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()] for name in NAMES
}
ALL = [(name, pair) for name, pairs in CORPORA.items() for pair in pairs]


def verdict(pair):
    return Rules().judge(pair["answer"], pair["gold"], question=pair["question"]).correct


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_is_large_labelled_and_without_repetition(name):
    pairs = CORPORA[name]
    assert len(pairs) >= 400
    assert len({(pair["answer"], str(pair["gold"]), pair["question"]) for pair in pairs}) == len(pairs)
    assert all(pair["reason"] and pair["kind"] for pair in pairs)


@pytest.mark.parametrize(("name", "kind"), sorted({(name, pair["kind"]) for name, pair in ALL}))
def test_no_rule_contradicts_a_label(name, kind):
    wrong = [
        (pair, said)
        for pair in CORPORA[name]
        if pair["kind"] == kind and (said := verdict(pair)) not in (None, pair["right"])
    ]
    assert not wrong


@pytest.mark.parametrize(("name", "share"), [("labelled_pairs", 0.6), ("plain_answers", 0.95)])
def test_rules_decide_a_good_share(name, share):
    decided = sum(verdict(pair) is not None for pair in CORPORA[name])
    assert decided / len(CORPORA[name]) >= share, (
        f"rules decide {decided} of {len(CORPORA[name])}; docs/results.md states the share"
    )


def test_another_verdict_is_another_version_of_the_rules():
    """A scored run names the version; whoever changes a verdict raises `RULES_VERSION` and writes the digest here."""
    verdicts = [verdict(pair) for _, pair in ALL]
    digest = hashlib.sha256(repr(verdicts).encode()).hexdigest()[:12]
    assert (RULES_VERSION, digest) == ("2", "cd756dc3e336")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table_of_what_a_rule_accepts_is_true(row):
    for pairs, wanted in ((row.right, True), (row.wrong, False), (row.open, None)):
        for gold, answer in pairs:
            found = Rules().judge(answer, gold)
            assert found.correct is wanted, (gold, answer)
            assert wanted is None or found.decided_by == f"rule:{row.name}", (gold, answer)


def test_the_page_shows_the_table():
    assert markdown() in (HERE.parents[2] / "judge/README.md").read_text(encoding="utf-8")
