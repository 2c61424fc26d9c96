"""Multiple choice as VLMEvalKit scores it.

Sources: VLMEvalKit e8e78f05, vlmeval/utils/matching_util.py (can_infer) and vlmeval/dataset/utils/multiple_choice.py
(extract_answer_from_item, extract_characters_regex); for the fork DeepEyesV2 0373e6e, the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from evaluation.scoring.grader import Grade, Grader
from evaluation.scoring.profiles import Profile
from judge.marks import option

LETTERS = ("A", "B", "C", "D", "E")
"""The options of the benchmarks that are read by their first letter."""
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_LAST_WORDS = 4
# No word ends behind the letter: "answer is definitely" names D, as in the reference.
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_PREFIXES = ("The best answer is", "The correct answer is", "The answer is", "The answer")
_LATER_PREFIXES = ("The best option is", "The correct option is", "Best answer:", "Best option:")
# Two missing commas glue these together, so that neither half is ever taken off. Source: ms-vlmeval 0.0.20, same function.
_GLUED_PREFIXES = ("The best option isThe correct option is", "Best answer:Best option:")
# The last box of the first line that has one.
_BOXED = re.compile(r"^.*\\boxed\{([^}]*)\}", re.MULTILINE)
_LETTER = re.compile(r"[ABCDE]")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def infer_option(answer: str, choices: Mapping[str, str], profile: Profile | None = None) -> str | None:
    """The option letter in an answer: the only one that is a word of its own, among the last four words.

    Returns:
        A letter, "Z" for a refusal, or None.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return "Z"
    words = answer.translate(_MARKS).split()
    found = [letter for letter in choices if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - _LAST_WORDS:
        return found[0]
    if not found and "Z" in words:
        return "Z"
    said = _ANSWER_IS.search(answer) if profile is not None and profile.answer_is_anywhere else None
    return said[1].upper() if said is not None and said[1].upper() in choices else None


def infer_text(answer: str, choices: Mapping[str, str]) -> str | None:
    """The option whose text is the only one contained in the answer; None for long answers."""
    lowered = answer.lower()
    if len(lowered) > 2 * sum(len(text) for text in choices.values()):
        return None
    found = [letter for letter, text in choices.items() if text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def infer_choice(answer: str, choices: Mapping[str, str], profile: Profile | None = None) -> str | None:
    """The option that an answer means, by letter first and then by text; None if no rule can tell."""
    return infer_option(answer, choices, profile) or infer_text(answer, choices)


def first_letter(answer: str, profile: Profile | None = None) -> str:
    """The first capital A to E anywhere, after some prefixes are taken off; MME-RealWorld and TreeBench are read so.

    Known to surprise: "Answer: C" gives A, an empty answer gives A, "Bus stop" gives B.

    Returns:
        A letter, "" for none; under the fork also such as "(C)", if the last box of a line holds it.
    """
    answer = answer.strip()
    if profile is not None and profile.boxed_keeps_brackets:
        boxed = _BOXED.search(answer)
        if boxed is not None and boxed[1] in {f"({letter})" for letter in "ABCDE"}:
            return boxed[1]
    whole = profile is not None and profile.prefixes_are_whole
    for prefix in (*_PREFIXES, *(_LATER_PREFIXES if whole else _GLUED_PREFIXES)):
        answer = answer.replace(prefix, "")
    found = _LETTER.search(answer)
    if found is not None:
        return found[0]
    if len(answer.split()) > 10:
        return ""
    return next((letter for letter in "ABCDE" if answer.lower() in f"({letter})".lower()), "")


def grade_first_letter(answer: str, gold: str, profile: Profile) -> Grade:
    """An answer that names no letter, or is empty, is wrong."""
    tagged = _TAGGED.search(answer)
    read = tagged[1].strip().upper() if tagged is not None else answer
    letter = first_letter(read, profile) if answer.strip() else ""
    return Grade(correct=letter == gold, decided_by="rule:letter" if letter else "rule:unparsed", extracted=letter)


async def grade_choice(
    answer: str, gold: str, choices: Mapping[str, str], grader: Grader, *, question: str, item_id: str
) -> Grade:
    """A rule decides; else the judge names the option; else it is wrong (without a judge), or not evaluated.

    Under the fork an answer that names no option goes to the judge once more, with the gold letter.
    """
    letter = infer_choice(answer, choices, grader.profile)
    if letter is not None and not (letter == "Z" and grader.profile.judge_has_last_word and grader.has_llm):
        return Grade(correct=letter == gold, decided_by="rule:choice", extracted=letter)
    if not grader.has_llm:
        return Grade(correct=False, decided_by="rule:unparsed")
    if letter is None:
        options = "\n".join(f"{name}. {text}" for name, text in choices.items())
        asked = await grader.ask(
            "choice",
            (lambda reply: infer_choice(reply, choices, grader.profile))
            if grader.parity
            else (lambda reply: option(reply, choices)),
            reader=f"choice:{grader.profile.name if grader.parity else 'option'}",
            question=question,
            options=options,
            answer=answer,
        )
        if asked.value is None:
            if not (grader.parity and not asked.outage):
                return grader.undecided(asked)
            drawn = grader.draw(item_id, [*choices, "Z"])
            return Grade(correct=drawn == gold, decided_by="random", extracted=drawn, judge_tokens=asked.num_tokens)
        letter = asked.value
        if letter != "Z" or not grader.profile.judge_has_last_word:
            return grader.by_judge(letter == gold, letter, asked)
    return await grader.verdict(answer, gold, question=question, by_llm_alone=grader.parity)
