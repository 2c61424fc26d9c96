"""Steps that ask models, against a real HTTP server: what is counted, what stays open, and what stops a run."""

import errno
import json

import pytest

from curation.errors import CurationError, CurationStopped
from curation.journal import AnswerJournal, entries
from evaluation.smoke.scripted_model import request_server
from tests.unit.curation.conftest import photo, row

THINK = [{"sample": {"as": "plain", "with": "base", "mode": "think", "k": 4}}]


def models(url, name="base", **more):
    return {name: {"model": "m", "base_urls": [url], "attempts": 1, "patience_s": 0.2, "max_in_flight": 4} | more}


def said(answer):
    return f"<think>I look.</think><answer>{answer}</answer>"


def text_of(body):
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def test_right_wrong_and_open_answers_of_each_row_are_counted_apart(bench):
    golds = {"0": "red", "1": "green", "2": "the tall man who wears a striped scarf"}
    rows = [row(int(n), gold=gold) for n, gold in golds.items()]

    def answer(body):
        if "numbered 2 " in text_of(body):
            return said("somebody whose clothes are rather striking to look at")
        return said("red" if body["seed"] % 2 else "blue")

    with request_server(answer) as url:
        bench.run([bench.source("mine", rows)], THINK, models=models(url))
    found = {kept.extra["index"]: kept.facts for kept in bench.step("01_plain").kept()}
    assert [
        (found[name]["plain.right"], found[name]["plain.wrong"], found[name]["plain.open"]) for name in sorted(found)
    ] == [
        (2, 2, 0),
        (0, 4, 0),
        (0, 0, 4),
    ]


def test_an_open_answer_may_be_right_so_that_neither_keeping_nor_dropping_is_guessed(bench):
    rows = [row(0, gold="the tall man who wears a striped scarf"), row(1, gold="red")]
    with request_server(lambda body: said("somebody whose clothes are striking")) as url:
        bench.run([bench.source("mine", rows)], [*THINK, {"keep": {"plain.right": {"max": 2}}}], models=models(url))
    summary = bench.step("02_keep").summary()
    assert (summary["kept"], summary["dropped"], summary["open"]) == (0, 0, 2)
    assert bench.reasons("02_keep")["i0"] == "open: plain.right is between 0 and 4"


def test_nothing_is_asked_twice_when_a_run_is_repeated(bench):
    asked = []
    with request_server(lambda body: asked.append(1) or said("red")) as url:
        for _ in range(2):
            bench.run([bench.source("mine", [row(0), row(1)])], THINK, models=models(url))
        assert len(asked) == 8
        # The step is made anew, as after a kill before its end; its answers are in the journal.
        (bench.directory / "run/01_plain/key.json").unlink()
        bench.run([bench.source("mine", [row(0), row(1)])], THINK, models=models(url))
        assert len(asked) == 8
        # A row more costs its own answers alone.
        bench.run([bench.source("mine", [row(0), row(1), row(2)])], THINK, models=models(url))
    assert len(asked) == 12


def test_an_outage_of_one_answer_is_asked_again_and_what_is_left_waits_and_is_not_wrong(bench):
    broken = {"i": 0}

    def answer(body):
        if "numbered 0 " in text_of(body) and body["seed"] == 0:
            broken["i"] += 1
            return 400 if broken["i"] <= 2 else said("red")
        return said("red")

    with request_server(answer) as url:
        bench.run([bench.source("mine", [row(0), row(1)])], THINK, models=models(url))
        facts = bench.step("01_plain").kept()[0].facts
        assert (facts["plain.right"], facts["plain.wrong"], facts["plain.open"]) == (3, 0, 1)
        assert bench.step("01_plain").summary()["waiting"] == 1
        assert "1 answers waiting for a server" in bench.lines[-1]
        bench.run([bench.source("mine", [row(0), row(1)])], THINK, models=models(url))
    assert bench.step("01_plain").kept()[0].facts["plain.right"] == 4
    assert bench.step("01_plain").summary()["waiting"] == 0


def test_an_endpoint_that_is_down_stops_the_run_with_what_was_done_kept(bench):
    up = {"left": 3}

    def answer(body):
        up["left"] -= 1
        return said("red") if up["left"] >= 0 else 500

    with request_server(answer) as url:
        with pytest.raises(CurationStopped):
            bench.run([bench.source("mine", [row(n) for n in range(20)])], THINK, models=models(url, max_in_flight=1))
        done = [entry for entry in entries(bench.directory / "run/01_plain/journal") if entry["done"]]
        assert len(done) == 3
        assert not (bench.directory / "run/01_plain/key.json").exists()
        up["left"] = 1000
        bench.run([bench.source("mine", [row(n) for n in range(20)])], THINK, models=models(url))
    assert sum(kept.facts["plain.right"] for kept in bench.step("01_plain").kept()) == 80


def test_a_row_goes_where_its_answers_put_it(bench):
    rows = [row(0, gold="red"), row(1, gold="blue")]
    steps = [*THINK, {"split": {"rl": {"plain.right": {"min": 1}}, "cold": {"plain.right": {"max": 0}}}}]
    with request_server(lambda body: said("red")) as url:
        bench.run([bench.source("mine", rows)], steps, models=models(url))
    assert {kept.extra["index"]: kept.part for kept in bench.step("02_split").kept()} == {"i0": "rl", "i1": "cold"}


def test_a_teachers_trajectory_is_kept_only_if_it_is_right_and_a_refusal_is_told(bench):
    rows = [row(0, gold="red"), row(1, gold="blue"), row(2, gold="green")]

    def answer(body):
        return "I cannot help with images of people." if "numbered 2 " in text_of(body) else said("red")

    steps = [
        {"synthesise": {"on": "rl", "with": ["teacher"], "k": 2, "tools": []}},
        {"export": {"rl": None, "sft": "llamafactory"}},
    ]
    with request_server(answer) as url:
        bench.run([bench.source("mine", rows)], steps, models=models(url, "teacher"), agent={"prompt": "think"})
    assert bench.kept("01_synthesise") == ["i0"]
    assert bench.reasons("01_synthesise") == {
        "i1": "no trajectory: 2 wrong",
        "i2": "no trajectory: 2 no answer (no_action)",
    }
    (talk,) = json.loads((bench.directory / "store/sets/toy/sft.json").read_text())
    assert [message["role"] for message in talk["messages"]] == ["system", "user", "assistant"]
    assert talk["teacher"] == "teacher"
    folder = bench.directory / "store/sets/toy"
    assert len(talk["images"]) == sum(message["content"].count("<image>") for message in talk["messages"]) == 1
    assert all((folder / path).is_file() for path in talk["images"])
    assert "| teacher | m | 1 |" in (folder / "README.md").read_text()


def test_a_conversation_that_the_cold_start_could_not_read_is_left_out_and_listed(bench):
    system = [{"role": "system", "content": "See <image>"}, {"role": "user", "content": "What colour is the thing?"}]
    rows = [row(0), row(1, question="Which tag is it, <video> or another?"), row(2, prompt=system)]
    steps = [
        {"synthesise": {"on": "rl", "with": ["teacher"], "k": 1, "tools": []}},
        {"export": {"rl": None, "sft": "llamafactory"}},
    ]
    with request_server(lambda body: said("red")) as url:
        bench.run([bench.source("mine", rows)], steps, models=models(url, "teacher"), agent={"prompt": "think"})
    folder = bench.directory / "store/sets/toy"
    assert [talk["key"] for talk in json.loads((folder / "sft.json").read_text())] == ["mine:mine:0"]
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert [line["key"] for line in dropped] == ["mine:mine:1", "mine:mine:2"]
    assert "holds <video>" in dropped[0]["reason"]
    assert bench.step("02_export").summary()["notes"]["conversations left out"] == 2
    assert bench.manifest()["rows"]["sft"] == 1


CHOICE = "What is on the table?\nA. a red cup\nB. a blue plate\nC. a green fork"


@pytest.mark.parametrize(
    ("new", "letter", "reason"),
    [
        ("I am sorry, I cannot do that.", "A", "not rewritten (refused or no JSON: 'I am sorry"),
        ('{"question": ', "A", "not rewritten (refused or no JSON"),
        ('{"question": "Is a blue plate on the table?"}', "B", "not rewritten (the gold is in it"),
        ('{"question": "What is there?\\nA. a cup\\nB. a plate"}', "B", "not rewritten (options are still in it"),
        ('{"question": "What stands in the kitchen?"}', "NONE", "not rewritten (the same gold does not follow: 'NONE'"),
        ('{"question": "What stands in the kitchen?"}', "??", "not rewritten (the same gold does not follow"),
    ],
)
def test_a_teacher_that_refuses_or_answers_garbage_or_changes_the_answer_rewrites_nothing(bench, new, letter, reason):
    rows = [row(0, question=CHOICE, gold="B"), row(1, gold="red")]
    with request_server(lambda body: new if "JSON" in text_of(body) else letter) as url:
        bench.run([bench.source("mine", rows)], [{"rewrite": {"with": "teacher"}}], models=models(url, "teacher"))
    assert bench.kept("01_rewrite") == ["i1"]
    assert bench.reasons("01_rewrite")["i0"].startswith(reason)


REWRITE = [{"rewrite": {"with": "teacher", "check_with": "checker"}}]
NEW = '{"question": "What lies on the table?"}'


def right_letter(body):
    return next(line[0] for line in text_of(body).splitlines() if line.endswith("a blue plate"))


def two_models(writer, checker, **more):
    return models(writer, "teacher") | models(checker, "checker", **more)


def test_a_rewriting_is_checked_by_the_model_that_the_file_names_and_not_by_its_writer(bench):
    asked = {"writer": [], "checker": []}

    def check(body):
        asked["checker"].append(text_of(body))
        return "<think>The plate, I am sure.</think> NONE" if len(asked["checker"]) == 1 else right_letter(body)

    rows = [row(0, question=CHOICE, gold="B"), row(1, question=CHOICE, gold="B", image=photo(7))]
    with (
        request_server(lambda body: asked["writer"].append(text_of(body)) or NEW) as writer,
        request_server(check) as checker,
    ):
        settings = two_models(writer, checker, max_in_flight=1) | {"teacher": models(writer, max_in_flight=1)["base"]}
        bench.run([bench.source("mine", rows)], REWRITE, models=settings)
    assert bench.kept("01_rewrite") == ["i1"]
    assert bench.reasons("01_rewrite") == {"i0": "not rewritten (the same gold does not follow: 'NONE' was chosen)"}
    assert [len(texts) for texts in asked.values()] == [2, 2]
    assert all("Rewrite" in text for text in asked["writer"])
    assert all("Which of these answers" in text for text in asked["checker"])
    spent = json.loads((bench.directory / "run/run.json").read_text())["models"]
    assert (spent["teacher"]["calls"], spent["checker"]["calls"]) == (2, 2)


def test_a_checker_that_is_away_stops_the_run_by_its_name_and_nothing_is_called_wrong(bench):
    rows = [row(n, question=CHOICE, gold="B", image=photo(n)) for n in range(3)]
    with request_server(lambda body: NEW) as writer:
        away = two_models(writer, "http://127.0.0.1:9/v1", attempts=1)
        with pytest.raises(CurationStopped, match="checker"):
            bench.run([bench.source("mine", rows)], REWRITE, models=away)
        with request_server(right_letter) as checker:
            bench.run([bench.source("mine", rows)], REWRITE, models=two_models(writer, checker))
    assert bench.kept("01_rewrite") == ["i0", "i1", "i2"]


def test_another_checker_checks_anew(bench):
    rows = [row(0, question=CHOICE, gold="B")]
    with request_server(lambda body: NEW) as writer, request_server(right_letter) as checker:
        bench.run([bench.source("mine", rows)], REWRITE, models=two_models(writer, checker))
        assert bench.kept("01_rewrite") == ["i0"]
        with request_server(lambda body: "NONE") as strict:
            settings = two_models(writer, strict, temperature=0.5)
            bench.run([bench.source("mine", [*rows, row(1)])], REWRITE, models=settings)
    assert bench.kept("01_rewrite") == ["i1"]


FORBIDDEN = {"error": {"code": "content_filter", "message": "The prompt triggered the content management policy."}}
WITHHELD = {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}], "usage": {}}


@pytest.mark.parametrize(("status", "body"), [(400, FORBIDDEN), (200, WITHHELD)], ids=["question", "reply"])
def test_a_teacher_whose_server_refuses_is_no_outage_and_is_not_asked_for_ever(bench, httpserver_of, status, body):
    rows = [row(n, question=CHOICE, gold="B", image=photo(n)) for n in range(25)]  # more than the outages that stop a run
    steps = [
        {"rewrite": {"with": "teacher", "on_failure": "keep"}},
        {"synthesise": {"on": "rl", "with": ["teacher"], "k": 1, "tools": []}},
    ]
    url, asked = httpserver_of(status, body)
    source = bench.source("mine", [*rows, row(99)])
    with pytest.raises(CurationError, match="no row is left before step 3"):
        bench.run([source], [*steps, {"check": {}}], models=models(url, "teacher"), agent={"prompt": "think"})
    assert bench.step("01_rewrite").summary()["notes"]["left as they are"] == 25
    reasons = set(bench.reasons("02_synthesise").values())
    assert reasons == {"no trajectory: 1 refused by the teacher's server"}
    assert len(asked) == 25 + 26
    assert bench.step("02_synthesise").summary()["waiting"] == 0


@pytest.mark.parametrize("gold", ["B", "b.", "(B)", "B. a blue plate", "A blue plate"])
def test_a_rewritten_question_has_the_options_text_as_its_gold_and_its_image_still(bench, gold):
    def answer(body):
        text = text_of(body)
        if "JSON" in text:
            return '<think>Hm.</think>```json\n{"question": "What lies on the table?"}\n```'
        return next(line[0] for line in text.splitlines() if line.endswith("a blue plate"))

    with request_server(answer) as url:
        bench.run(
            [bench.source("mine", [row(0, question=CHOICE, gold=gold)])],
            [{"rewrite": {"with": "teacher"}}],
            models=models(url, "teacher"),
        )
    (kept,) = bench.step("01_rewrite").kept()
    assert kept.gold == ("a blue plate",)
    assert kept.question == "What lies on the table?"
    assert kept.prompt[-1]["content"] == "<image>\nWhat lies on the table?"


@pytest.mark.parametrize("step", [THINK[0], {"rewrite": {"with": "base"}}])
def test_a_disk_that_is_full_while_models_are_asked_stops_the_run_in_words(bench, monkeypatch, step):
    def full(self, entry):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AnswerJournal, "add", full)
    with (
        request_server(lambda body: said("red")) as url,
        pytest.raises(CurationStopped, match=r"No space left on device; make room"),
    ):
        bench.run([bench.source("mine", [row(0, question=CHOICE, gold="B")])], [step], models=models(url))


def test_half_a_line_of_a_journal_is_passed_over_and_nothing_is_glued_to_it(tmp_path):
    journal = AnswerJournal(tmp_path)
    journal.add({"id": "a" * 64, "done": True})
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"id": "bbb')
    journal.add({"id": "c" * 64, "done": True})
    assert [entry["id"][0] for entry in entries(tmp_path)] == ["a", "c"]
    journal.close()
