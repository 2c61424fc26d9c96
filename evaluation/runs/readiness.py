"""Are the servers there that a run needs? They are asked before the first item, all at once, and within ten seconds.

What is wrong is told together, and nothing was asked then; what is only slow or partly there is said, and the run goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from agent.errors import EpisodeFailure
from agent.model_keys import KEY, NO_KEY
from agent.search.gateway import open_search
from agent.settings import AgentSettings
from code_sandbox.client import SandboxClient
from code_sandbox.command_line import OUTAGE
from code_sandbox.errors import SandboxError, SandboxUnavailable
from code_sandbox.redaction import checked_url, redact_requests_log, redacted, secrets_of
from code_sandbox.wire import Health
from judge.client import Judge, JudgeMisconfigured, JudgeSettings
from judge.connection import model_names, refusal_text, status_and_json

_WAIT_S = 5.0
_MOST_NAMES, _MOST_CHARS = 20, 200
_log = logging.getLogger(__name__)


class NotReady(RuntimeError):
    """A server that the run needs is not there, or is not what was asked for: nothing was asked, and nothing is scored."""

    exit_status = OUTAGE


class _Away(Exception):
    """One server of several does not answer; another may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAsked:
    """A model behind servers, as it will be asked."""

    base_urls: tuple[str, ...]
    """With `/v1`."""
    name: str
    api_key: str = NO_KEY


def check_servers(
    agent: AgentSettings, model: ModelAsked | None, judge: JudgeSettings | None, *, say: Callable[[str], object] = _log.info
) -> None:
    """Ask every server that a run needs whether it is there, and fit.

    Args:
        agent: Its tools say whether a sandbox and search are needed.
        model: None: it is started here later.
        judge: None: the run is not scored now; without servers rules alone decide.
        say: Gets a line on who is asked, before they are.

    Raises:
        NotReady: All that is wrong, with what to do.
    """
    asked: dict[str, Coroutine[Any, Any, None]] = {}
    if "python" in agent.tools_on:
        asked[f"the sandbox at {_shown(agent.sandbox_urls)}"] = _ask_sandboxes(agent.sandbox_urls)
    if model is not None:
        asked[f"the model at {_shown(model.base_urls)}"] = _ask_models(model)
    for tool in ("search", "image_search"):
        if _needs(agent, tool):
            asked[f"the source of {tool}"] = _ask_source(agent, tool)
    if judge is not None and judge.base_urls:
        asked[f"the judge at {_shown(judge.base_urls)}"] = _ask_judge(judge)
    if not asked:
        return
    say(f"asking whether {', '.join(asked)} {'is' if len(asked) == 1 else 'are'} there")

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*asked.values(), return_exceptions=True)

    problems = [found for found in asyncio.run(all_of_them()) if found is not None]
    for found in problems:
        if not isinstance(found, (NotReady, JudgeMisconfigured, OSError, ValueError, LookupError)):
            raise found
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems)
        raise NotReady(f"nothing was asked and nothing is scored:\n{told}")


def _needs(agent: AgentSettings, tool: str) -> bool:
    tools = agent.tools_on
    return tool in tools or (tool == "search" and "fetch_page" in tools)


def _shown(urls: Sequence[str]) -> str:
    return ", ".join(map(redacted, urls))


async def _any_of(urls: Sequence[str], ask: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Ask all; some may be away, for the others share their work.

    Raises:
        NotReady: All are away, or one is not what was asked for.
    """
    found = await asyncio.gather(*map(ask, urls), return_exceptions=True)
    for problem in found:
        if problem is not None and not isinstance(problem, _Away):
            raise problem
    away = [problem for problem in found if problem is not None]
    if len(away) == len(urls):
        raise NotReady("; ".join(map(str, away)))
    for problem in away:
        _log.warning("%s; the run begins without it", problem)


async def _ask_sandboxes(urls: Sequence[str]) -> None:
    """A server has its Redis and computes 6 * 7."""
    states: dict[str, Health] = {}

    async def ask(url: str) -> None:
        try:
            async with SandboxClient([url]) as client:
                (states[url],) = await client.health()
        except SandboxError as error:
            raise _Away(f"{error}. Without code: --mode think") from error
        if states[url].redis != "ok":
            raise NotReady(f"the sandbox at {_shown((url,))} has lost its Redis and takes no new sessions; restart Redis")

    await _any_of(urls, ask)
    try:
        async with SandboxClient(list(states), wait_s=_WAIT_S - 1) as client:
            session = await client.open()
            result = await session.execute("print(6 * 7)", timeout_s=10)
            await session.close()
    except SandboxUnavailable as error:
        if all(state.sessions >= state.max_sessions for state in states.values()):
            _log.warning("the sandbox at %s is full; the run waits for room", _shown(tuple(states)))
            return
        raise NotReady(f"the sandbox at {_shown(tuple(states))} answers and opens no session: {error}") from error
    except SandboxError as error:
        where = _shown(tuple(states))
        raise NotReady(f"the sandbox at {where} opens no session: {error}; see CODE_SANDBOX_TOKEN") from error
    if result.stdout.strip() != "42":
        raise NotReady(f"the sandbox computed {result.stdout!r} instead of 42: {result.stderr}")


async def _ask_models(model: ModelAsked) -> None:
    """A server takes the key, and has the model."""
    for url in model.base_urls:
        checked_url(url, "a model server")
    redact_requests_log()
    headers = {"Authorization": f"Bearer {model.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=_WAIT_S, trust_env=False) as http:
        await _any_of(model.base_urls, lambda url: _ask_model(http, url.rstrip("/"), model))


async def _ask_model(http: httpx.AsyncClient, url: str, model: ModelAsked) -> None:
    shown = f"the model server at {_shown((url,))}"
    secrets = (*(() if model.api_key == NO_KEY else (model.api_key,)), *secrets_of(url))
    try:
        status, answer = status_and_json(listed := await http.get(f"{url}/models"))
        names = model_names(answer)
        if model.name in names or status == 429:
            return
        if status not in (401, 403):
            # Some servers list nothing, or have more names than they list: a word from the model tells.
            body = {"model": model.name, "messages": [{"role": "user", "content": "Reply with OK."}], "max_tokens": 1}
            status, answer = status_and_json(listed := await http.post(f"{url}/chat/completions", json=body))
    except httpx.ReadTimeout as error:
        raise _Away(f"{shown} took the request and did not answer within {_WAIT_S:g} s; is it still loading?") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = redacted(str(error), *secrets) or type(error).__name__
        raise _Away(f"{shown} does not answer ({why}); start it, or correct --base-url") from error
    said = " ".join(redacted(refusal_text(listed.text), *secrets)[:_MOST_CHARS].split())
    if status == 429 or (status == 200 and isinstance(answer, dict) and answer.get("choices")):
        return
    if status >= 500:
        raise _Away(f"{shown} answered HTTP {status} ({said}); look at its log")
    if status in (401, 403):
        which = "wants a key" if model.api_key == NO_KEY else "does not take the key"
        raise NotReady(f"{shown} {which} (HTTP {status}: {said}); set {KEY}")
    if names:
        served = ", ".join(redacted(names[:_MOST_NAMES], *secrets)) + (
            f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else ""
        )
        raise NotReady(f"{shown} serves {served}, not {model.name!r} (HTTP {status}: {said}); name one with --model")
    raise NotReady(
        f"{shown} is no OpenAI-compatible API (HTTP {status}: {said}); correct --base-url, which usually ends in /v1"
    )


async def _ask_source(agent: AgentSettings, tool: str) -> None:
    """The source is opened; one that reads a local file is asked, because that costs nothing."""
    block = agent.search if tool == "search" else agent.image_search
    if not block:
        raise NotReady(f"the tool {tool!r} has no source: give --{tool.replace('_', '-')}, or leave it out of --tools")
    try:
        source = open_search(block)
    except (TypeError, OSError, ValueError, LookupError) as error:
        raise NotReady(f"the source of {tool}: {error}") from error
    if source is None:
        return
    try:
        if tool == "search" and block["provider"] == "local" and source.settings.mode == "live":
            await source.search("what is this", max_hits=1)
    except EpisodeFailure as error:
        raise NotReady(f"the source of {tool}: {error}") from error
    finally:
        await source.aclose()


async def _ask_judge(settings: JudgeSettings) -> None:
    """The judge is there, and takes the key for a question too."""
    judge = Judge(settings.model_copy(update={"cache": None, "attempts": 1, "patience_s": _WAIT_S, "timeout_s": _WAIT_S}))
    try:
        await judge.ping()
        await judge.llm.ask("Reply with OK.", str, reader="readiness")
    finally:
        await judge.aclose()
