"""How VLMEvalKit puts a row into words. The wording is part of what a score means, so it is kept to the letter.

Source: VLMEvalKit e8e78f05, vlmeval/dataset/image_mcq.py (ImageMCQDataset.build_prompt).
"""

from __future__ import annotations

from collections.abc import Mapping

SELECT = "Please select the correct answer from the options above. \n"


def choice_question(values: Mapping[str, str], choices: Mapping[str, str], *, ending: str = SELECT) -> str:
    """Hint, question, options, and what to do."""
    hint = f"Hint: {values['hint']}\n" if "hint" in values else ""
    options = "Options:\n" + "".join(f"{letter}. {text}\n" for letter, text in choices.items()) if choices else ""
    return f"{hint}Question: {values['question']}\n{options}{ending if choices else ''}"
