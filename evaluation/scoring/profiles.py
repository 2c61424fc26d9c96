"""Whose rules an answer is scored by. The same predictions give other scores under each, so a score names its profile.

`vlmevalkit`        VLMEvalKit e8e78f05 (2026-08-18)
`ms-vlmeval`        the package ms-vlmeval 0.0.20: VLMEvalKit of late 2025; the oracle test runs it
`deepeyesv2-fork`   the fork in DeepEyesV2 0373e6e, base ca9a644d (2025-10-13), with its own edits; behind the paper's
numbers
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Where the three differ."""

    name: str
    answer_is_anywhere: bool = False
    """"answer is **b" names an option wherever it stands (A to D only), in any case and whatever letters follow."""
    prefixes_are_whole: bool = False
    """"Best answer:" is taken off before a letter is looked for; older lists lack the comma that makes it a prefix."""
    boxed_keeps_brackets: bool = False
    r"""`\boxed{(C)}` gives "(C)", which equals no letter."""
    judge_has_last_word: bool = False
    """A refused choice, and a chart's answer that is another text, are shown to the judge with the gold answer."""
    tolerance_of_prediction: bool = False
    """ChartQA's 5 % are taken of the prediction instead of the gold value."""
    charxiv_key: str = "extracted_answer"
    """Which key the judge's JSON must have; it stands in each version's `grading_query`."""
    unwraps_maths: bool = False
    r"""MathVision's gold answers lose `\boxed{}`, and what its judge extracts loses `\( \)`, before they are compared."""
    values_are_extracted: bool = False
    """MathVision's values always go to the judge: the fork compares first, but in a thread, where its time limit fails."""
    boxes_in_answer_only: bool = False
    """TreeBench's `<box>` tags are looked for in the answer alone; an agent's has none, so that its mIoU is 0."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="vlmevalkit", answer_is_anywhere=True, prefixes_are_whole=True),
        Profile(name="ms-vlmeval", charxiv_key="extract_answer"),
        Profile(
            name="deepeyesv2-fork",
            boxed_keeps_brackets=True,
            judge_has_last_word=True,
            tolerance_of_prediction=True,
            charxiv_key="extract_answer",
            unwraps_maths=True,
            values_are_extracted=True,
            boxes_in_answer_only=True,
        ),
    )
}


def load_profile(name: str) -> Profile:
    """Find a profile.

    Raises:
        LookupError: There is none; the message lists those that are.
    """
    if name not in PROFILES:
        raise LookupError(f"no scoring profile {name!r}; there are: {', '.join(PROFILES)}")
    return PROFILES[name]
