"""Reading what a judge writes: thoughts, verdicts by structure, marks, and what is given to read."""

import json
import re
import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from judge.marks import json_object, letters, number, number_text, one_line, option, unmarked
from judge.quoting import disarmed, quoted
from judge.replies import CHOICES, Spoken, mentions, parse_reply, read_answer, read_choice, spoken
from judge.verdict import Outcome

# ---- thoughts ----

THOUGHT = "Is it CORRECT? No, INCORRECT. Or CORRECT."
FAMILIES = [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"), ("<mm:think>", "</mm:think>"), ("<|START_THINKING|>", "<|END_THINKING|>"), ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<unused94>", "<unused95>"), ("<|channel>thought\n", "<channel|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"), ("<THINK>", "</THINK>"), ("<think type='x'>", "</think>"),
    ("Here is my thought process:", "Here is my response:"), ("Thinking...\n", "\n...done thinking.\n"), ("<longcat_think>", "</longcat_think>"),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), FAMILIES[:4])
def test_a_verdict_before_a_thought_and_another_behind_it_are_none(opening, closing):
    assert parse_reply(f"INCORRECT: {opening}x{closing}CORRECT", "lenient") is None
    assert parse_reply(f"Let me see. {opening}INCORRECT?{closing}CORRECT") is Outcome.CORRECT


@pytest.mark.parametrize("word", CHOICES)
@pytest.mark.parametrize(("opening", "closing"), FAMILIES)
def test_thoughts_of_every_family_are_taken_off_and_one_without_an_end_says_nothing(opening, closing, word):
    for reply in (
        f"{opening}{THOUGHT}{closing}{word}",
        f"\n{opening}\n{THOUGHT}\n{closing}\n\n{word}\n",
        f"{opening}{closing}{word}",
    ):
        assert spoken(reply).text == word
        assert spoken(reply).thought
    assert spoken(f"{opening}{THOUGHT}\n{word}") is None
    assert spoken(f"{word}\n{opening}{THOUGHT}") is None or spoken(f"{word}\n{opening}{THOUGHT}").text != word


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("a thought\n</think>\n\n14", "14"), ("<think>a</think><think>b</think>14", "14"), ("<think>the tag <think> is</think>14", "14"),
        ("<think>it ends with </think> 13</think>14", "14"), ("<think>a</think><answer>14</answer>", "14"), ("14<|im_end|>", "14"),
        ("<|im_start|>assistant\n14</s>", "14"), ("<|START_RESPONSE|>14<|END_RESPONSE|>", "14"), ("14<｜end▁of▁sentence｜>", "14"),
        ("<|channel|>analysis<|message|>12?<|end|><|start|>assistant<|channel|>final<|message|>14<|return|>", "14"),
        ("analysisLet me see.assistantfinal14", "14"), ("<response>14</response>", "14"), ("a < b and b > c", "a < b and b > c"), ("", ""),
        ("Analysis: they agree.\nCORRECT", "Analysis: they agree.\nCORRECT"),
    ],
)  # fmt: skip
def test_what_is_said_behind_thoughts_is_what_counts(reply, text):
    assert spoken(reply).text == text


@pytest.mark.parametrize(
    "reply", ["<|channel|>analysis<|message|>CORRECT", "analysisWe need CORRECT", "<think>", "14 <think>"]
)
def test_a_thought_that_was_begun_and_not_ended_says_nothing(reply):
    assert spoken(reply) is None


# ---- verdicts ----


@pytest.mark.parametrize(
    "reply",
    [
        "NOT CORRECT", "not INCORRECT", "It is NOT\nCORRECT", "The answer is not\n\nCORRECT", "This isn't\nCORRECT", "It is nicht\nCORRECT",
        "这不是\nCORRECT", "INCORRECT\nCORRECT", "CORRECT or INCORRECT", "正确", "錯誤", "Richtig", "верно", "correct", "Correct", "TRUE", "Yes",
        "ＣＯＲＲＥＣＴ", "C O R R E C T", "СORRECT", "CORRECTLY", "UNCORRECT", "CORRECT_", "CORRECT answer", "The CORRECT answer is red.", "CORRECT?",
        "It says red\u2028CORRECT", "It says red\x0bCORRECT", "It says red\x85CORRECT", "INCORRECT, it reads red\u2028CORRECT", "PARTIALLY CORRECT",
        'INCORRECT. The answer was "red\nCORRECT"', "INCORRECT since it says </think>\nCORRECT", "It would be CORRECT if it were red",
        "Almost CORRECT", "CORRECT, but only in part", "Half\nCORRECT", "IN CORRECT", "IN\nCORRECT", "Neither CORRECT nor INCORRECT", "is it CORRECT",
        "CORRECT, aber nur teilweise", "No es CORRECT", "It is far from CORRECT", '{"answer": "CORRECT", "verdict": "no"}', '{"answer": "CORRECT", "right": "INCORRECT"}',
        '{"verdict": "CORRECT", "judgement": "INCORRECT"}', '{"verdict": "CORRECT"} {"verdict": "INCORRECT"}', '{"answer": "CORRECT", "grade": 0}', "Far from\nCORRECT", "are both CORRECT",
    ],
)  # fmt: skip
def test_no_strictness_reads_a_word_that_something_may_turn_round(reply):
    for strictness in ("strict", "lenient"):
        assert parse_reply(reply, strictness) is None


@pytest.mark.parametrize("word", CHOICES)
@pytest.mark.parametrize(
    "form",
    [
        "{}", "**{}**", "{}.", "`{}`", "\\boxed{{{}}}", "```\n{}\n```", '"{}"', '{{"verdict": "{}"}}', '{{"reason": "It says INCORRECT, CORRECT", "verdict": "{}"}}', "Verdict: {}", "**Verdict:** {}",
        "<answer>{}</answer>", "Both were compared.\n{}", "Both were compared\n\n{}", "## Verdict\n{}", "Verdict\n{}", "1. one\n2. two\n\n**{}**",
        "<think>CORRECT? INCORRECT?</think>\n\n{}", "It is.\r\n\r\n{}\r\n",
    ],
)  # fmt: skip
def test_the_usual_forms_of_a_verdict_are_read(form, word):
    wanted = Outcome.CORRECT if word == "CORRECT" else Outcome.INCORRECT
    assert parse_reply(form.format(word)) is wanted


@pytest.mark.parametrize("word", CHOICES)
@pytest.mark.parametrize(
    "form",
    ["I think it is {}.", "My verdict is thus **{}**", "They differ in case. Therefore both are {}.", "Verdict: {}, sadly"],
)
def test_the_lenient_reader_takes_a_plain_sentence(form, word):
    assert parse_reply(form.format(word), "strict") is None
    assert parse_reply(form.format(word), "lenient") is (Outcome.CORRECT if word == "CORRECT" else Outcome.INCORRECT)


LABEL = "VERDICT-0a1b2c"


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (f"{LABEL}: INCORRECT", "INCORRECT"), (f"It reads\nred\nCORRECT\n\n{LABEL}: INCORRECT", "INCORRECT"), (f"**{LABEL}: CORRECT**", "CORRECT"),
        (f"`{LABEL}`: **CORRECT**.", "CORRECT"), (f"{LABEL}: CORRECT\n\nIt reads\nINCORRECT", "CORRECT"), (f"{LABEL.lower()} INCORRECT", "INCORRECT"),
        (f"I end with {LABEL}: CORRECT or {LABEL}: INCORRECT.\n\n{LABEL}: INCORRECT", "INCORRECT"), ("INCORRECT", "INCORRECT"),
        (f"{LABEL}: CORRECT\n{LABEL}: INCORRECT", None), (f"{LABEL}: CORRECT or INCORRECT", None), (f"not\n{LABEL}: CORRECT", None),
        (f"{LABEL}: correct", None), ("VERDICT-ffffff: CORRECT", None), ("It reads red.\nCORRECT", None), (f"{LABEL}: CORRECT only in part", None),
    ],
)  # fmt: skip
def test_what_a_judge_quotes_cannot_hold_the_requests_label(reply, word):
    assert read_choice(spoken(reply), CHOICES, label=LABEL, quotable=True) == word


def test_behind_an_end_of_thought_that_may_be_quoted_only_the_label_counts():
    reply = "INCORRECT, for the answer ends with </think>\nCORRECT"
    assert read_choice(spoken(reply), CHOICES, label=LABEL, quotable=True) is None
    assert read_choice(spoken(f"{reply}\n{LABEL}: INCORRECT"), CHOICES, label=LABEL, quotable=True) == "INCORRECT"


@pytest.mark.parametrize(
    ("material", "found"),
    [
        ("red", False),
        ("Correct!", True),
        ("c-o-r-r e\u200bct", True),
        ("ＣＯＲＲＥＣＴ", True),
        ("it was corrected", True),
        ("", False),
    ],
)
def test_a_word_is_found_in_what_the_judge_reads_however_it_is_spelled(material, found):
    assert mentions(material, CHOICES) is found


PIECES = st.lists(
    st.sampled_from(
        ["CORRECT", "INCORRECT", "not", "NOT", "\n", "\n\n", ".", " ", "<think>", "</think>", '"', "**", "is", "it", "only", "if", "\u2028", LABEL, ":", "?"]
    ),
    max_size=12,
)  # fmt: skip


@example(["CORRECT", "not", "\n\n", "CORRECT"])
@example(["not", "CORRECT", "CORRECT", "?", "CORRECT"])
@given(PIECES)
def test_a_reply_with_both_words_is_read_by_its_label_or_not_at_all(pieces):
    reply = "".join(pieces)
    said = spoken(reply)
    if said is None:
        assert parse_reply(reply) is None
        return
    words = re.findall(r"(?<![A-Z])(?:IN)?CORRECT(?![A-Z])", reply)
    for strictness in ("strict", "lenient"):
        found = read_choice(said, CHOICES, strictness=strictness)
        assert found is None or found in words
        if found is not None and "</think>" not in pieces:
            assert set(words) == {found}
        behind_thoughts = reply.rpartition("</think>")[2]
        assert found is None or "not" + found.lower() not in "".join(behind_thoughts.lower().split())


@given(st.text(), st.text())
def test_a_quotation_behind_a_verdict_never_turns_it_round(quoted_text, more):
    reply = f"{LABEL}: INCORRECT\n{quoted_text}\nCORRECT\n{more}"
    said = spoken(reply)
    assert said is None or read_choice(said, CHOICES, label=LABEL, quotable=True) in ("INCORRECT", None)


# ---- a server's answer ----


def answer(finish="stop", **message):
    return {
        "choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"total_tokens": 7},
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "14"}, "14"), ({"content": [{"type": "text", "text": "1"}, {"type": "text", "text": "4"}]}, "14"), ({"content": 14}, "14"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "13"}]}, {"type": "text", "text": "14"}]}, "14"),
        ({"content": ["14"]}, "14"), ({"content": {"type": "text", "text": "14"}}, "14"), ({"content": "14", "reasoning": "13?"}, "14"),
        ({"content": [{"type": "text", "text": {"value": "14"}}]}, "14"), ({"content": [{"type": "output_text", "text": "14"}]}, "14"),
        ({"content": "14", "reasoning_content": None}, "14"),
    ],
)  # fmt: skip
def test_content_is_read_in_every_form_that_servers_give_it(message, text):
    found = read_answer(answer(**message))
    assert (found.said.text, found.problem, found.num_tokens) == (text, "", 7)


@pytest.mark.parametrize(
    ("message", "finish", "problem"),
    [
        ({"content": "CORRECT"}, "length", "cut"), ({"content": "CORRECT"}, "MAX_TOKENS", "cut"), ({"content": ""}, "stop", "empty"),
        ({"content": None, "reasoning": "CORRECT"}, "stop", "only a thought"), ({"content": None, "reasoning": "CORRECT"}, "length", "still thinking"),
        ({"content": "CORRECT"}, "content_filter", "content_filter"), ({"content": None, "refusal": "No."}, "stop", "refused"),
        ({"content": "<think>CORRECT"}, "stop", "without an end"), ({}, "tool_calls", "tool_calls"), ({"content": "<think>a</think>"}, "stop", "only a thought"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_relied_on_says_why(message, finish, problem):
    found = read_answer(answer(finish, **message))
    assert found.said is None
    assert problem in found.problem
    assert not found.outage


@pytest.mark.parametrize(
    "wire",
    [
        None, [], "text", 5, {}, {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": [{"message": []}]},
        {"choices": [{"message": {"content": True}}]}, answer("abort", content="CORRECT"), answer("error", content="CORRECT"),
        {"choices": [{"message": {"content": "CORRECT"}, "error": {"code": 502}}]}, {"choices": [{"message": {"content": [5]}}]},
    ],
)  # fmt: skip
def test_what_is_no_chat_completion_is_an_outage_and_no_reply(wire):
    found = read_answer(wire)
    assert (found.said, found.outage) == (None, True)
    assert found.problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["content", "CORRECT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "type", "text", "usage", "total_tokens"]), inner, max_size=3),
)  # fmt: skip


@given(JSON)
def test_no_answer_of_a_server_raises(wire):
    assert read_answer(wire) is not None


# ---- marks ----

AROUND = ["{}", "**{}**", "*{}*", "`{}`", '"{}"', "“{}”", "${}$", "$${}$$", "\\({}\\)", "\\boxed{{{}}}", "```\n{}\n```", "```text\n{}\n```", "```{}```", "``` {} ```", "```text {} ```", "\\text{{{}}}",
          "Answer: {}", "The answer is {}", "**Answer:** {}", "**Final Answer**\n\n{}", "{}.", " {} \n"]  # fmt: skip


@example("3.5", ["`{}`", "`{}`", "`{}`"])
@example("3.5", ["```{}\n```", "{}"])
@given(st.sampled_from(["14", "-3", "3.5", "B", "Sunday", "\\frac{1}{2}"]), st.lists(st.sampled_from(AROUND), max_size=3))
def test_marks_come_off_in_any_nesting_or_the_reply_is_unreadable(value, around):
    reply = value
    for form in around:
        reply = form.format(reply)
    assert one_line(reply) in (value, None)
    if len(around) == 1:
        assert one_line(reply) == value


@given(st.integers(-(10**6), 10**6), st.sampled_from(AROUND))
def test_a_marked_number_is_that_number(value, form):
    assert number(form.format(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "2 or 3",
        "1/2",
        "50%",
        "1 1/2",
        "10 000",
        "3 million",
        "14, 15",
        "- 14",
        "about 14",
        "x",
        "",
        "1,00",
        "2^3",
        "14 of 20",
    ],
)
def test_what_is_not_one_number_is_no_number(text):
    assert number_text(text) is None


@given(st.text(alphabet=string.printable, max_size=40))
@example("E0")
def test_no_reader_of_marks_raises(text):
    for read in (unmarked, one_line, number, number_text, letters, json_object):
        read(text)
    option(text, {"A": "red", "B": "blue"})


@pytest.mark.parametrize(
    "reply", ["B", "(B)", "B.", "**B**", "Option B", "B. blue", "(B) blue", "blue", '"B"', "The answer is B", "[B]", "$B$"]
)
def test_an_option_is_read_by_letter_or_text(reply):
    assert option(reply, {"A": "red", "B": "blue"}) == "B"


@pytest.mark.parametrize("reply", ["A or B", "not B", "B. red", "b", "B, because it is blue", "C", "blueish", "AB", ""])
def test_what_names_no_option_beyond_doubt_names_none(reply):
    assert option(reply, {"A": "red", "B": "blue"}) is None


@pytest.mark.parametrize("text", [" " * 160_000, "*" * 160_000, "<think>" * 20_000, "[" * 100_000, "```" * 30_000, '"' * 100_000, "\\boxed{" * 20_000,
                                  "VERDICT-0a1b2c " * 10_000, "not " * 40_000, "</s>" * 30_000, "CORRECT " * 20_000, "a\n" * 80_000])  # fmt: skip
def test_a_hostile_reply_holds_nobody_up(text):
    began = time.process_time()
    said = spoken(text)
    for strictness in ("strict", "lenient"):
        read_choice(said or Spoken(text), CHOICES, strictness=strictness, label=LABEL)
    for read in (unmarked, one_line, number, letters, json_object, quoted):
        read(text)
    option(text, {"A": "red"})
    assert time.process_time() - began < 2.0


# ---- what is given to read ----

SPECIAL = """<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|begin_of_text|> <|start_header_id|> <|channel|> <|message|> <|return|> <s> </s> <unk> <pad> <bos> 
<eos> <start_of_turn> <end_of_turn> [INST] [/INST] <<SYS>> <</SYS>> [gMASK] <sop> [MASK] [SEP] [CLS] [THINK] [/THINK] [TOOL_CALLS] [SYSTEM_PROMPT] 
<think> </think> <tool_call> </tool_call> <seed:think> <mm:think> <unused94> <0x0A> <extra_id_0> <fim_prefix> <image> <|image_pad|> <|vision_start|> 
<｜begin▁of▁sentence｜> <｜Assistant｜> ◁think▷ ◁/think▷ [|assistant|] [UNUSED_TOKEN_146] <reserved_102> <|START_OF_TURN_TOKEN|> <|turn> <channel|> 
<_system> <Bot> <eoa> <longcat_user> ]~b] <jupyter_start> <EOT> <|user|> <|assistant|> <box> <ref> <commit_before>"""


@pytest.mark.parametrize("token", SPECIAL.split())
def test_special_tokens_of_every_family_are_taken_apart(token):
    for text in (token, f"red{token}CORRECT", token * 3, f"<{token}>"):
        assert token not in quoted(text)
        assert token not in disarmed(text)


@pytest.mark.parametrize(
    "char",
    [
        "\u2028",
        "\u2029",
        "\x85",
        "\u202e",
        "\u2066",
        "\U000e0041",
        "\U000e0001",
        "\u200b",
        "\ufeff",
        "\x1b",
        "\x00",
        "\U000e0100",
    ],
)
def test_characters_that_nobody_sees_are_written_out(char):
    assert char not in quoted(f"red{char}CORRECT")
    assert char not in disarmed(f"red{char}CORRECT")
    assert json.loads(quoted(f"red{char}CORRECT")) == f"red{char}CORRECT"


@given(st.text())
def test_what_is_quoted_is_one_line_of_json(text):
    line = quoted(text)
    assert len(line.splitlines()) == 1
    assert isinstance(json.loads(line), str)


@given(st.text(alphabet=string.ascii_letters + string.digits + ' .,:;!?+-*/=()%$\\"', max_size=200))
def test_plain_text_is_given_as_it_is(text):
    assert json.loads(quoted(text)) == text


def test_a_cut_says_how_much_is_missing_and_shows_both_ends():
    text = json.loads(quoted("red " + "x" * 9000 + " blue", max_chars=4000))
    assert text.startswith("red ")
    assert text.endswith(" blue")
    assert "[cut: 5009 characters are left out here]" in text
    assert "cut" not in quoted("x" * 4000, max_chars=4000)
    assert len(quoted("\U000e0041" * 4000, max_chars=4000)) < 1000
