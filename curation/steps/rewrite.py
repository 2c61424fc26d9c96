"""A teacher turns multiple choice into open questions; the same gold has to follow from the new question.

The check asks again, with the new question and the options in another order: the gold has to be chosen. It may be asked of
another model than the writer, which is blind to its own slips: what a writer means by its words it also reads into them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any, Literal

from pydantic import Field

from agent.chat_formats import image_rule_for
from agent.errors import ContextFull, PolicyUnavailable, ReplyWithheld
from agent.images import UnreadableImage
from agent.messages import IMAGE_PLACEHOLDER, escape, shown
from agent.openai_chat import ChatPolicy
from agent.setup import question as asked_with
from curation.asking import Endpoint, WantedAnswer, ask_all
from curation.folders import OPEN, StepOutcome
from curation.journal import AnswerJournal
from curation.players import answers
from curation.rows import CuratedRow, digest
from curation.settings import Name, Strict
from curation.spending import RunAccount
from curation.work import Work

_PROMPTS = Path(__file__).parent.parent / "prompts"
_OPTION = re.compile(r"^[ \t]*\(?([A-H])[.):]\s*(\S.*)$", re.MULTILINE)
_LETTERS = "ABCDEFGH"


class RewriteSettings(Strict):
    """Who rewrites, into what, and who checks."""

    with_: Name = Field(alias="with")
    """A model of the file that writes the new question."""
    check_with: Name | None = None
    """A model of the file that has to find the gold; null is the writer itself."""
    to: Literal["open_ended"] = "open_ended"
    verify: Literal["same_gold"] = "same_gold"
    max_reply_tokens: int = Field(1024, ge=1)
    on_failure: Literal["drop", "keep"] = "drop"
    """What happens to a row whose rewriting was refused, was no JSON or did not pass: `keep` leaves it multiple choice."""

    @property
    def checker(self) -> str:
        """The model that checks."""
        return self.check_with or self.with_

    @property
    def asks(self) -> tuple[str, ...]:
        """Models of the file."""
        return (self.with_, self.checker)


SETTINGS = RewriteSettings


@dataclass(frozen=True, slots=True)
class _Choice:
    options: Mapping[str, str]
    gold: str
    """The letter; empty if the gold is none of them."""


def choice_of(row: CuratedRow) -> _Choice | None:
    """The options of a multiple-choice question; None for an open one."""
    options = dict(_OPTION.findall(row.question))
    if len(options) < 2 or list(options) != list(_LETTERS[: len(options)]):
        return None
    options = {letter: text.strip() for letter, text in options.items()}
    for gold in row.gold:
        said = gold.strip()
        letter = said.strip("().: ")[:1].upper() if re.fullmatch(r"\(?[A-Ha-h][).:]?(\s.*)?", said) else ""
        matching = [name for name, text in options.items() if text.lower() == said.lower()]
        if found := next(iter(matching), letter if letter in options else ""):
            return _Choice(options, found)
    return _Choice(options, "")


def _plan(work: Work) -> list[WantedAnswer]:
    base, name = digest(key_of(work)), work.step.settings.with_
    found = []
    for row in work.rows:
        choice = choice_of(row)
        if choice is not None and choice.gold:
            found.append(WantedAnswer(id=digest([base, row.key, row.content()]), row=row, sample=0, model=name))
    return found


def key_of(work: Work) -> dict[str, Any]:
    """Who rewrites and who checks, told what."""
    prompts = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(_PROMPTS.glob("*.txt"))}
    settings, models = work.step.settings, work.curation.file.models
    key = {"model": models[settings.with_].identity(), "prompts": prompts}
    return key if settings.check_with is None else key | {"checker": models[settings.check_with].identity()}


async def gather(work: Work) -> None:
    """Ask for what is missing.

    Raises:
        CurationStopped: A cap is reached, no server is left, or only outages come back.
    """
    journal, account, models = AnswerJournal(work.folder / "journal"), RunAccount(work.curation), work.curation.file.models
    endpoints = {name: Endpoint(name, models[name], account) for name in dict.fromkeys(work.step.settings.asks)}

    async def one(asked: WantedAnswer) -> dict[str, Any]:
        return await _rewrite(asked.row, endpoints, work)

    try:
        await ask_all(_plan(work), journal, endpoints, one)
    finally:
        journal.close()
        for endpoint in endpoints.values():
            await endpoint.aclose()
        account.close()


async def _rewrite(row: CuratedRow, endpoints: Mapping[str, Endpoint], work: Work) -> dict[str, Any]:
    choice, settings = choice_of(row), work.step.settings
    assert choice is not None
    asked = settings.with_
    try:
        said = await _ask(row, _filled("rewrite", question=row.question), endpoints[asked], work)
        new, problem = _question_in(said, choice)
        if not problem:
            order = sorted(choice.options, key=lambda letter: hashlib.sha256(f"{row.key}{letter}".encode()).digest())
            listed = "\n".join(f"{_LETTERS[n]}. {choice.options[letter]}" for n, letter in enumerate(order))
            asked = settings.checker
            said = await _ask(row, _filled("same_gold", question=new, answers=listed), endpoints[asked], work)
            letter = said.rpartition("</think>")[2].strip().strip("().*` ").upper()
            if letter != _LETTERS[order.index(choice.gold)]:
                problem = f"the same gold does not follow: {letter[:40]!r} was chosen"
    except (UnreadableImage, OSError) as error:
        return {"done": True, "outcome": "refused", "why": f"an image cannot be shown: {error}"}
    except ReplyWithheld as error:
        return {"done": True, "outcome": "refused", "why": f"refused by the server of {asked}: {error}"}
    except PolicyUnavailable as error:
        return {"done": False, "outcome": "failed", "why": f"{asked}: {error}", "ends_run": error.ends_run}
    except ContextFull as error:
        return {"done": True, "outcome": "refused", "why": f"too long for {asked}: {error}"}
    return {"done": True, "outcome": "refused" if problem else "rewritten", "why": problem, "question": new}


async def _ask(row: CuratedRow, text: str, endpoint: Endpoint, work: Work) -> str:
    rule = image_rule_for(endpoint.settings.model, work.curation.agent_settings().image_max_pixels)
    message = shown(asked_with(text, row.read_images(work.library)), rule)
    policy = ChatPolicy(
        endpoint.client, max_reply_tokens=work.step.settings.max_reply_tokens, primer="", seed=work.curation.file.seed
    )
    return (await policy.reply([message])).text


def _filled(name: str, **values: str) -> str:
    return Template((_PROMPTS / f"{name}.txt").read_text(encoding="utf-8")).substitute(values)


def _question_in(reply: str, choice: _Choice) -> tuple[str, str]:
    """(the new question, what is wrong with it)."""
    found = re.search(r"\{.*\}", reply.rpartition("</think>")[2], re.DOTALL)
    try:
        new = json.loads(found[0])["question"] if found else None
    except (ValueError, KeyError, TypeError):
        new = None
    if not isinstance(new, str) or not new.strip():
        return "", f"refused or no JSON: {reply.strip()[:80]!r}"
    new, gold = new.strip(), choice.options[choice.gold]
    if _OPTION.search(new):
        return new, "options are still in it"
    if len(gold) > 2 and re.search(rf"\b{re.escape(gold.lower())}\b", new.lower()):
        return new, f"the gold is in it: {gold[:40]!r}"
    return new, ""


async def apply(work: Work) -> StepOutcome:
    """Put new questions in, with the option's text as their gold."""
    settings, found = work.step.settings, answers(work.folder, _plan(work))
    kept, dropped, notes, waiting = [], [], {"rewritten": 0, "already open": 0, "left as they are": 0}, 0
    for row in work.rows:
        choice = choice_of(row)
        if choice is None:
            notes["already open"] += 1
            kept.append(row)
            continue
        entry = found[row.key][0] if row.key in found else {"outcome": "refused", "why": "the gold is none of the options"}
        waiting += entry["outcome"] == "failed"
        if entry["outcome"] == "rewritten":
            notes["rewritten"] += 1
            kept.append(_renewed(row, entry["question"], choice))
        elif entry["outcome"] == "failed":
            dropped.append((row, f"{OPEN}the teacher or its checker was away"))
        elif settings.on_failure == "keep":
            notes["left as they are"] += 1
            kept.append(row)
        else:
            dropped.append((row, f"not rewritten ({entry['why']})"))
    return StepOutcome(kept=kept, dropped=dropped, waiting=waiting, notes=notes)


def _renewed(row: CuratedRow, new: str, choice: _Choice) -> CuratedRow:
    *before, last = [dict(message) for message in row.prompt]
    old = last["content"]
    asked = escape(new)
    if row.question in old:
        last["content"] = old.replace(row.question, asked)
    else:
        last["content"] = f"{IMAGE_PLACEHOLDER}\n" * old.count(IMAGE_PLACEHOLDER) + asked
    extra = {**row.extra, "question": new, "rewritten_from": row.question}
    return replace(row, prompt=(*before, last), extra=extra, gold=(choice.options[choice.gold],))
