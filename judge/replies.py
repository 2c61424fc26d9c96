"""What a judge server's answer says: the one place where thoughts are taken off, and where a reply is called unreadable.

Servers give thoughts in many forms: in a field of their own, as a part of the content, between tags, or with the first tag
left out because the chat template wrote it. A thought that is not closed, and a reply that was cut, say nothing.

A verdict is found by structure, never by looking for a word: the whole reply, or the line with the request's own label, or
(where nothing that the judge read holds such a word) the last line. `strictness` says what is done with other replies:

`strict`    nothing
`lenient`   a sentence that says one of the words and nothing that could turn it round; the published reasoning judge is read
            so, the rubric judge takes any "Yes" (DeepEyesV2 0373e6e, reward_score)
`exact`     only the bare word is taken, as VLMEvalKit does; for parity with it
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from judge.marks import json_object, unmarked
from judge.verdict import Outcome

Strictness = Literal["strict", "lenient"]
Reading = Literal["strict", "lenient", "exact"]
CHOICES = ("CORRECT", "INCORRECT")

# ---- thoughts ----

_THOUGHT_WORD = r"(?:think|thought|reason|analysis|scratchpad|reflection|monologue)"
_THOUGHT_TAG = re.compile(
    rf"<[^<>\s]{{0,30}}{_THOUGHT_WORD}[^<>\s]{{0,30}}(?:\s[^<>]{{0,60}})?>|\[/?THINK(?:ING)?\]|◁/?think▷|<unused9[45]>"
    r"|<\|(?:open|close)\|>think<\|sep\|>|<\|channel>thought|<channel\|>",
    re.IGNORECASE,
)
_CLOSING_TAG = re.compile(r"^[<\[◁][|｜]?(?:/|end|close)|^<unused95>|^<channel\|>|[▁_]end", re.IGNORECASE)
_HARMONY_FINAL = re.compile(r"<\|channel\|>final(?:\s[^<]*)?(?:<\|constrain\|>[^<]*)?<\|message\|>")
# gpt-oss where the detokenizer dropped the special tokens and left the channels' names.
_HARMONY_BARE = re.compile(r"^analysis(?=[A-Z\W])")
_SPELLED_THOUGHT = re.compile(
    r"^\s*(?:Here(?:'s| is) my thought process:.*?Here(?:'s| is) my response:|Thinking\.\.\..*?\.\.\.done thinking\.)",
    re.DOTALL,
)
_SPELLED_OPENING = re.compile(r"^\s*(?:Here(?:'s| is) my thought process:|Thinking\.\.\.\s)")
_SPECIAL = r"(?:<\|[^<>|\s]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?s>|<(?:start|end)_of_turn>|<[be]os>|<turn\|>|<\|turn>)"
_LEADING = re.compile(rf"^(?:\s*{_SPECIAL}\s*(?:assistant\s*\n|model\s*\n)?)+")
_TRAILING = re.compile(rf"{_SPECIAL}\Z")
_LONGEST_SPECIAL = 50
_WRAPPER = re.compile(r"\s*<(answer|response|final|final_answer|output)>(?P<inside>(?:(?!</?\1>).)*)</\1>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply without its thoughts."""

    text: str
    thought: bool = False
    """Whether thoughts were taken off."""
    dropped: str = ""
    """What stood before a thought, or before the end of one whose beginning is missing: it may be part of the reply."""


def spoken(reply: str) -> Spoken | None:
    """What a judge says, without what it thinks; None if a thought was begun and not ended.

    Sources: the reasoning parsers of vLLM 0.28 (vllm/reasoning, vllm/parser) for the tags of each family.
    """
    text, thought, dropped = reply, False, ""
    if "<|channel|>" in text:
        finals = list(_HARMONY_FINAL.finditer(text))
        if not finals:
            return None
        text, thought = text[finals[-1].end() :], True
    elif _HARMONY_BARE.match(text):
        _, found, text = text.rpartition("assistantfinal")
        if not found:
            return None
        thought = True
    if (begun := _SPELLED_THOUGHT.match(text)) is not None:
        text, thought = text[begun.end() :], True
    elif _SPELLED_OPENING.match(text):
        return None
    is_open = False
    start = 0
    for tag in _THOUGHT_TAG.finditer(text):
        closing = _CLOSING_TAG.search(tag[0]) is not None
        if not is_open:
            dropped += text[start : tag.start()]
        if closing:
            start = tag.end()
        is_open, thought = not closing, True
    if is_open:
        return None
    text = _LEADING.sub("", text[start:]).strip()
    while (end := _TRAILING.search(text, max(0, len(text) - _LONGEST_SPECIAL))) is not None:
        text = text[: end.start()].rstrip()
    wrapped = _WRAPPER.fullmatch(text)
    return Spoken((wrapped["inside"] if wrapped else text).strip(), thought, dropped)


# ---- a server's answer ----

_ENDED = {"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finished", "end"}
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"}
_BROKEN = {"abort", "aborted", "error", "cancelled", "canceled", "timeout", "network_error", "insufficient_system_resource"}
_THOUGHT_FIELDS = ("reasoning", "reasoning_content", "thinking", "thinking_blocks", "reasoning_details")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeReply:
    """One answer of a server, as far as it can be relied on."""

    said: Spoken | None = None
    """None if there is nothing to rely on; `problem` says why."""
    raw: str = ""
    """Content as it came, thoughts and all."""
    num_tokens: int = 0
    thought: bool = False
    """Whether it thought, in whatever form."""
    cut: bool = False
    """Whether its length was what ended it."""
    problem: str = ""
    outage: bool = False
    """Whether this is no answer of the model at all."""


def read_answer(answer: Any) -> JudgeReply:
    """Read the JSON of a chat completion; whatever else it is comes back as a reply without words."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content, thought = _content(message.get("content"))
        thought = thought or any(message.get(name) for name in _THOUGHT_FIELDS)
        finish = str(choice.get("finish_reason") or "").casefold()
        refusal = message.get("refusal")
    except (LookupError, TypeError, AttributeError):
        return JudgeReply(problem=f"no chat completion: {str(answer)[:200]}", outage=True)
    tokens = _tokens(answer)
    if finish in _BROKEN or choice.get("error"):
        why = choice.get("error") or f"finish_reason {finish!r}"
        problem = f"broken off: {str(why)[:200]}"
        return JudgeReply(raw=content, num_tokens=tokens, thought=thought, problem=problem, outage=True)
    said = spoken(content)
    problem, cut = "", finish in _CUT
    if cut:
        problem = "cut at its longest length" + (", while it was still thinking" if thought or said is None else "")
    elif finish not in _ENDED:
        problem = f"ended by {finish!r}"
    elif said is None:
        problem = "a thought without an end"
    elif not content.strip() and refusal:
        problem = f"refused: {str(refusal)[:100]!r}"
    elif not said.text:
        problem = "only a thought, and no words" if thought or said.thought else "empty"
    thought = thought or said is None or said.thought
    said = None if problem else said
    return JudgeReply(said=said, raw=content, num_tokens=tokens, thought=thought, cut=cut, problem=problem)


def _content(content: Any) -> tuple[str, bool]:
    """(text, whether a part of it is a thought)."""
    if content is None:
        return "", False
    if isinstance(content, str):
        return content, False
    if isinstance(content, bool):
        raise TypeError("content is neither text nor parts")
    if isinstance(content, (int, float)):  # a gateway that parsed "1" as JSON
        return str(content), False
    texts, thought = [], False
    for part in [content] if isinstance(content, dict) else content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if re.search(r"think|reason", str(part.get("type", ""))):
            thought = True
            continue
        text = part.get("text")
        if isinstance(text, dict):  # as OpenAI's assistants write it
            text = text.get("value")
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts), thought


def _tokens(answer: Any) -> int:
    try:
        return max(0, int((answer.get("usage") or {}).get("total_tokens") or 0))
    except (TypeError, ValueError, AttributeError):
        return 0


# ---- one of several words ----


def mentions(material: str, choices: Sequence[str]) -> bool:
    """Whether a text holds one of the words, however it is spelled: quoting it could then look like a verdict."""
    plain = "".join(char for char in unicodedata.normalize("NFKC", material).casefold() if char.isalnum())
    return any(len(choice) < 3 or choice.casefold().replace("_", "") in plain for choice in choices)


def read_choice(
    said: Spoken,
    choices: Sequence[str],
    *,
    strictness: Reading = "strict",
    label: str = "",
    quotable: bool = False,
) -> str | None:
    """Which of the words a reply decides for; None if that is not beyond doubt.

    Args:
        said: The reply.
        choices: Such as CORRECT and INCORRECT.
        strictness: What is done with a reply that does not have the form that was asked for.
        label: Of the line that the judge was asked to end with; it was drawn for this request, nobody else knows it.
        quotable: Whether what the judge read holds such a word, so that a quotation might look like a verdict.
    """
    if strictness == "exact":
        return said.text if said.text in choices else _only_value(said.text, choices)
    # Words behind the end of a thought may be a quotation too, if the thought was none.
    behind_a_quotation = quotable and said.thought
    whole = _whole(said.text, choices)
    if whole is not None and not behind_a_quotation and not _other_word(said.dropped, whole, choices):
        return whole
    lines = [line.strip() for line in said.text.split("\n")]
    if label and (labelled := _labelled(lines, choices, label)) is not None:
        return labelled
    if quotable:
        return None
    found = _in_a_sentence(lines, choices) if strictness == "lenient" else _last_line(lines, choices)
    if found is None or _other_word(said.text, found, choices) or _other_word(said.dropped, found, choices):
        return None
    return found


def parse_reply(reply: str, strictness: Strictness = "strict") -> Outcome | None:
    """The verdict in a reply to a question without a label, or None if there is none to be sure of."""
    said = spoken(reply)
    word = None if said is None else read_choice(said, CHOICES, strictness=strictness)
    return None if word is None else outcome_of(word)


def outcome_of(word: str) -> Outcome:
    """The outcome that CORRECT or INCORRECT names."""
    return Outcome.CORRECT if word == CHOICES[0] else Outcome.INCORRECT


def _whole(text: str, choices: Sequence[str]) -> str | None:
    """The word that a reply consists of, perhaps marked, or as the only value of a JSON object."""
    bare = unmarked(text)
    return bare if bare in choices else _only_value(bare, choices)


_VERDICT_KEYS = frozenset(("verdict", "judgement", "judgment", "decision", "reply", "final_verdict"))


def _only_value(text: str, choices: Sequence[str]) -> str | None:
    """The word that is the only value of a JSON object, as a schema has it written, or the only one under such a name."""
    value = (json_object(text) if text.startswith("{") else None) or {}
    if len(value) > 1:
        value = {key: found for key, found in value.items() if key.casefold() in _VERDICT_KEYS}
    word = str(next(iter(value.values()))) if len(value) == 1 else ""
    return word if word in choices else None


# A line that is not finished: the word on the next line belongs to its sentence.
_NEGATED = re.compile(
    r"(?:(?<!(?-i:[a-z]))(?:not|never|no|nor|neither|without|un|in|nicht|kein|pas|non|nie|не)|n't|不|不是|非|没有|ない)\W*$",
    re.IGNORECASE,
)
_FINISHED = re.compile(
    r"[.:!)\]}>*_`\"'。：！」』]\s*$|^#|^\W*$|^\W*(?:final |my )?(?:verdict|judge?ment|answer|result|conclusion)\W*$",
    re.IGNORECASE,
)


def _stands_alone(lines: Sequence[str], number: int) -> bool:
    """Whether the line before ends a sentence, or a gap stands between."""
    if _is_negated(lines, number):
        return False
    return number == 0 or not lines[number - 1] or _FINISHED.search(lines[number - 1][-_LONGEST_SPECIAL:]) is not None


def _is_negated(lines: Sequence[str], number: int) -> bool:
    before = next((line for line in reversed(lines[:number]) if line), "")
    return _NEGATED.search(before[-_LONGEST_SPECIAL:]) is not None


def _last_line(lines: Sequence[str], choices: Sequence[str]) -> str | None:
    number = max((number for number, line in enumerate(lines) if line), default=-1)
    if number < 0:
        return None
    word = unmarked(lines[number])
    return word if word in choices and _stands_alone(lines, number) else None


def _labelled(lines: Sequence[str], choices: Sequence[str], label: str) -> str | None:
    """The word of the lines that hold nothing but the label and a word; None if they differ."""
    form = re.compile(rf"\W*{re.escape(label)}[\s*_`\"'=：:\-]*({'|'.join(map(re.escape, choices))})[\s*_`\"'.]*", re.I)
    found = set()
    for number, line in enumerate(lines):
        if (match := form.fullmatch(line)) is not None and match[1] in choices and not _is_negated(lines, number):
            found.add(match[1])
    return found.pop() if len(found) == 1 else None


def _words(text: str, choices: Sequence[str]) -> list[str]:
    return re.findall(rf"(?<![A-Z_])(?:{_either(choices)})(?![A-Z_])", text)


def _either(choices: Sequence[str]) -> str:
    return "|".join(map(re.escape, sorted(choices, key=len, reverse=True)))


def _other_word(text: str, word: str, choices: Sequence[str]) -> bool:
    """Whether a text holds another of the words, or one that is glued to something, so that nobody can tell what it says."""
    words = _words(text, choices)
    return any(found != word for found in words) or len(re.findall(_either(choices), text)) != len(words)


_PLAIN_WORDS = re.compile(
    r"i|we|think|believe|conclude|judge|find|say|so|it|this|that|the|these|they|both|(?:answer|model|student)(?:'?s)?|response"
    r"|final|my|overall|verdict|judge?ment|result|conclusion|evaluation|decision|assessment|grade|label|is|are|as|therefore|thus"
    r"|hence|to|be|marked",
    re.IGNORECASE,
)
_HARMLESS_AFTER = frozenset(("sadly", "indeed", "clearly", "obviously", "unfortunately", "then", "here", "overall"))


def _in_a_sentence(lines: Sequence[str], choices: Sequence[str]) -> str | None:
    """The one word that sentences with such words say; only words that cannot turn it round may stand beside it."""
    found = set()
    for number, line in enumerate(lines):
        if not (words := _words(line, choices)):
            continue
        sentences = [part for part in re.findall(r"[^.!?;。！？；]+[.!?;。！？；]?", line) if _words(part, choices)]
        if len(sentences) != len(words) or not _stands_alone(lines, number):
            return None
        if not all(_is_plain(sentence, word) for sentence, word in zip(sentences, words, strict=True)):
            return None
        found |= set(words)
    return found.pop() if len(found) == 1 else None


def _is_plain(sentence: str, word: str) -> bool:
    before, _, after = sentence.partition(word)
    others = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", before.replace("’", "'"))
    behind = after.strip(" *_`\"'.!。！)")
    if sentence.endswith(("?", "？")) or not all(map(_PLAIN_WORDS.fullmatch, others)) or others[:1] in (["is"], ["are"]):
        return False
    return not behind or (behind[0] in ",-–—:" and set(re.findall(r"\w+", behind.lower())) <= _HARMLESS_AFTER)
