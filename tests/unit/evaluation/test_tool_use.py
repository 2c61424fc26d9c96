"""What is told from a program's syntax tree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls import KINDS, calls_of, classify_code, error_class, is_placeholder
from agent.episode import Episode, StopReason, Turn
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, Malformed, ToolCall
from evaluation.runs.tool_use import episode_facts


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("display(image_1.crop((0, 0, 9, 9)))", "crop"), ("a = np.array(image_1)[10:20, 30:40]", "crop"),
        ("draw = ImageDraw.Draw(image_1)\ndraw.rectangle((0, 0, 5, 5))\nimage_1.crop((0, 0, 1, 1))", "mark"),
        ("cv2.circle(img, (3, 3), 2, 0)", "mark"), ("print(3 * 4)", "numerical"), ("import math\nprint(math.sqrt(2))", "numerical"),
        ("x = sum(values)\nprint(x)", "numerical"), ("display(image_1.rotate(90))", "other"), ("# crop here\nprint('x')", "other"),
        ("plt.imshow(image_1)\nplt.show()", "other"), ("this is not python", "other"), ("", "other"), ("line = [1, 2]\nline[0:1]", "other"),
    ],
)  # fmt: skip
def test_code_is_sorted_by_what_it_does_and_not_by_what_it_says(code, kind):
    assert classify_code(code) == kind


@pytest.mark.parametrize(
    ("code", "nothing"),
    [("", True), ("# thinking", True), ("pass", True), ("print('done')", True), ("import os", True), ("1 + 1", False),
     ("print(image_1.size)", False), ("'a string'", True), ("broken(", False)],
)  # fmt: skip
def test_code_that_does_nothing_is_seen(code, nothing):
    assert is_placeholder(code) is nothing


@given(st.text(max_size=120))
def test_any_text_can_be_sorted(text):
    assert classify_code(text) in KINDS
    assert is_placeholder(text) in (True, False)


@pytest.mark.parametrize(
    ("error", "name"),
    [("", ""), ("NameError", "NameError"), ("TimeoutError", "TimeoutError"), ("KernelDied", "KernelDied"), ("unknown tool", "unknown tool"),
     ("Invalid tool call parameters: search needs a string", "refused")],
)  # fmt: skip
def test_errors_have_classes(error, name):
    assert error_class(error) == name


def turn(action, *, text="<think>t</think>", error="", finish="stop", images=0):
    shown = Message("user", "<image>" * images, (ImageFile(b"x"),) * images) if isinstance(action, ToolCall) else None
    reply = Reply(text=text, finish=finish, num_tokens=7, num_prompt_tokens=30)
    return Turn(reply=reply, action=action, observation=shown, tool_error=error, reply_s=0.5, tool_s=0.25)


def episode(*turns, end=StopReason.ANSWERED, answer="a"):
    return Episode(opening=(), turns=list(turns), end=end, answer=answer, wall_s=2.0)


def python(code, **more):
    return turn(ToolCall("python", {"code": code}), **more)


def test_calls_are_counted_with_repeats_placeholders_and_errors():
    made = episode(
        python("print(1)"), python("print(1)"), python("x.crop()", error="NameError", images=1),
        turn(ToolCall("search", {"query": "q"})), turn(Malformed("bad JSON", "Error")),
        turn(Malformed("nothing")), turn(FinalAnswer("a")),
    )  # fmt: skip
    calls = list(calls_of(made.turns))
    assert [call.kind for call in calls] == ["other", "other", "crop", "search", "other"]
    assert [call.repeated for call in calls] == [False, True, False, False, False]
    assert [call.error for call in calls] == ["", "", "NameError", "", "malformed"]
    facts = episode_facts(made)
    assert (facts.tool_calls, facts.tool_errors, facts.images_seen, facts.turns) == (5, 2, 1, 7)
    assert facts.reply_tokens == 49
    assert facts.calls[0].placeholder is True


def test_format_violations_are_told_by_rule():
    facts = episode_facts(episode(turn(Malformed(""), text="hm"), end=StopReason.NO_ACTION, answer=None))
    assert facts.format_errors == ("unbalanced <think>", "no single answer")
    fine = episode_facts(episode(turn(FinalAnswer("a"), text="<think>t</think><answer>a</answer>")))
    assert fine.format_errors == ()
