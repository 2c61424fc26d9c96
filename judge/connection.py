"""The wire to judge servers: addresses, the key, what a refusal means. What servers say is shown without secrets."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import httpx

from code_sandbox.command_line import OUTAGE
from code_sandbox.redaction import clean_key, redact_requests_log, redacted, secrets_of

KEY_VARIABLE = "JUDGE_API_KEY"
_PING_S = 5.0
_LONGEST_WAIT_S = 60.0
_MOST_NAMES = 20
_NO_LIST = (404, 405, 501)


class JudgeMisconfigured(RuntimeError):
    """The judge refuses every request: a wrong model name, key or URL. Retrying cannot help."""

    exit_status = OUTAGE


class WrongServer(JudgeMisconfigured, ConnectionError):
    """What answers at the URL is not the judge that was asked for. A kind of both: who only asks whether there is a judge
    need not tell this from one that is away.
    """


def judge_key(key: str | None = None, *, variable: str = KEY_VARIABLE) -> str:
    """The key of the judge's servers; empty for none.

    Args:
        key: Given in the program; None reads the environment.
        variable: Where it was read, for the error.

    Raises:
        ValueError: It cannot be sent: a line break or another character that no header may hold. The key is not shown.
    """
    found = clean_key(os.environ.get("JUDGE_API_KEY", "") if key is None else key, f"the judge's key ({variable})")
    return "" if found == "EMPTY" else found


class _Bearer(httpx.Auth):
    """Puts the key into a request, and into no request that somebody sends it on to."""

    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class Connection:
    """The connection to a judge's servers, opened at first use. Redirects are not followed: the key goes to these alone.

    Args:
        urls: With `/v1`; a name and password in front of the host are sent as such, and shown to nobody.
        key: None is JUDGE_API_KEY; empty is none.
        model: That is asked for.
        timeout_s: Of one request.
        max_in_flight: Connections.
        transport: Of tests.

    Raises:
        ValueError: A URL or the key cannot be one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: str | None,
        model: str,
        timeout_s: float,
        max_in_flight: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._key = judge_key(key) if urls else ""
        self._model = model
        self._timeout_s = timeout_s
        self._secrets = (self._key, *secrets_of(*urls))
        parts = [_split(url) for url in urls]
        self.urls = tuple(_without_login(part) for part in parts)
        """Without logins and the last stroke."""
        self._logins = {url: _login(part) for url, part in zip(self.urls, parts, strict=True)}
        redact_requests_log()
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=_PING_S),
            limits=httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight),
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def post(self, url: str, body: dict[str, Any], *, patience: float = 1.0) -> httpx.Response:
        """Send one chat request.

        Args:
            url: Of a server.
            body: Of the request.
            patience: How many times the usual time-out a longer reply may take.

        Raises:
            httpx.TransportError: No answer.
        """
        timeout = httpx.Timeout(patience * self._timeout_s, connect=_PING_S)
        return await self._http.post(f"{url}/chat/completions", json=body, auth=self._auth(url), timeout=timeout)

    def _auth(self, url: str) -> httpx.Auth:
        """The key, or the address's login."""
        login = self._logins[url]
        if self._key:
            return _Bearer(self._key)
        return httpx.BasicAuth(*login) if login is not None else httpx.Auth()

    def shown(self, url: str) -> str:
        """An address for people."""
        return self.tidy(url)

    def tidy(self, text: str) -> str:
        """Text of a server without the key and without passwords."""
        return redacted(text, *self._secrets)

    def refusal(self, url: str, status: int, text: str) -> JudgeMisconfigured:
        """What a status that no retry mends means, with what to do."""
        said = self.tidy(refusal_text(text))[:300]
        return JudgeMisconfigured(
            f"the judge at {self.shown(url)} answered HTTP {status}: {said}; {self._advice(status, text)}check judge.model "
            f"({self._model!r}), {KEY_VARIABLE} and LLM_AS_A_JUDGE_BASE; `deepeyes judge doctor` looks closer"
        )

    def _advice(self, status: int, text: str) -> str:
        if status in (401, 403):
            return "it does not take this key; " if self._key else f"it wants a key, and {KEY_VARIABLE} is not set; "
        if status == 402:
            return "the account of this key has nothing left; "
        if 300 <= status < 400:
            return "it sends requests on to another address, which gets no key: name that address instead; "
        if status in (404, 405) and "model" not in text.lower():
            return "there is no chat API at this address, whose path usually ends in /v1; "
        return ""

    async def ping(self, url: str) -> None:
        """Ask for the models; a server that lists none is asked a question instead.

        Raises:
            ConnectionError: It does not answer, or not now.
            WrongServer: It wants another key, serves another model, or is no such server.
        """
        try:
            response = await self._get(f"{url}/models", url)
        except httpx.HTTPError as error:
            raise ConnectionError(self._away(url, str(error) or type(error).__name__)) from error
        status, answer = status_and_json(response)
        if status == 429:
            return  # it is there, and busy
        if status >= 500 and status not in _NO_LIST:
            raise ConnectionError(self._away(url, f"HTTP {status}"))
        served = model_names(answer)
        if status == 200 and served and any(_same_model(name, self._model) for name in served):
            return
        if status == 200 and served:
            names = ", ".join(served[:_MOST_NAMES])
            names += f" and {len(served) - _MOST_NAMES} more" if len(served) > _MOST_NAMES else ""
            raise WrongServer(
                f"the judge at {self.shown(url)} serves {names}, not {self._model!r}; name one of these (--judge-model, "
                f"judge.model), or start it with `--served-model-name {self._model}`"
            )
        if status in (401, 403) or 300 <= status < 400:
            raise WrongServer(str(self.refusal(url, status, response.text)))
        if status in _NO_LIST or (status == 200 and answer is not None):
            await self._ask_instead(url)
            return
        raise WrongServer(await self._no_api(url, response))

    async def _get(self, address: str, url: str) -> httpx.Response:
        return await self._http.get(address, auth=self._auth(url), timeout=_PING_S)

    async def _ask_instead(self, url: str) -> None:
        """Some gateways list no models; then a question shows whether there is one."""
        body = {"model": self._model, "messages": [{"role": "user", "content": "Reply with OK."}]}
        try:
            response = await self.post(url, body)
        except httpx.HTTPError as error:
            raise ConnectionError(self._away(url, str(error) or type(error).__name__)) from error
        status, answer = status_and_json(response)
        if status == 200 and isinstance(answer, dict) and answer.get("choices"):
            return
        if status == 429 or status >= 500:
            raise ConnectionError(self._away(url, f"HTTP {status}"))
        if status in (400, 401, 403):
            raise WrongServer(str(self.refusal(url, status, response.text)))
        raise WrongServer(await self._no_api(url, response))

    async def _no_api(self, url: str, response: httpx.Response) -> str:
        """No chat API at this address; perhaps there is one below it."""
        said = self.tidy(" ".join(response.text[:120].split()))
        hint = "the address usually ends in /v1"
        for longer in (f"{url}/v1", f"{url}/api/v1"):
            try:
                found = await self._get(f"{longer}/models", url)
            except httpx.HTTPError:
                break
            if model_names(status_and_json(found)[1]):
                hint = f"there is one at {self.shown(longer)}: use that address"
                break
        what = f"HTTP {response.status_code} with {'a web page' if said.startswith('<') else 'something else'} ({said!r})"
        return f"{self.shown(url)} is no model server: it answered {what}; {hint}"

    def _away(self, url: str, why: str) -> str:
        return (
            f"no judge at {self.shown(url)} ({self.tidy(why)}); start one with `bash judge/serve.sh` or set "
            "LLM_AS_A_JUDGE_BASE"
        )


def asked_to_wait_s(response: httpx.Response) -> float:
    """Seconds of a `Retry-After`, at most a minute; 0 without one, or with a date."""
    try:
        return min(max(0.0, float(response.headers.get("retry-after", 0))), _LONGEST_WAIT_S)
    except ValueError:
        return 0.0


def status_and_json(response: httpx.Response) -> tuple[int, Any]:
    """(status, JSON or None). Gateways say with 200 that something behind them failed: then the status is the failure's."""
    if response.status_code != 200:
        return response.status_code, None
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return 200, None
    if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        return (code if isinstance(code, int) and 400 <= code <= 499 else 502), answer
    return 200, answer


def model_names(answer: Any) -> list[str]:
    """The names in a list of models, in the forms that servers give it; empty for anything else."""
    rows = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        return []
    named = [row.get("id") or row.get("name") if isinstance(row, dict) else row for row in rows]
    return [name for name in named if isinstance(name, str)]


def refusal_text(text: str) -> str:
    """What a refusal says, without the request that some servers send back in it."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(answer, dict):
        return text
    error = answer.get("error", answer.get("detail", answer))
    if isinstance(error, list):  # FastAPI's
        return "; ".join(f"{row.get('loc')}: {row.get('msg')}" for row in error if isinstance(row, dict)) or text
    if isinstance(error, dict):
        said = [str(error[name]) for name in ("message", "param", "code", "type") if error.get(name)]
        return " · ".join(said) or text
    return str(error)


def _same_model(served: str, wanted: str) -> bool:
    """Gateways list patterns, and Gemini's endpoint puts `models/` in front."""
    return served == wanted or served == f"models/{wanted}" or ("*" in served and fnmatch.fnmatchcase(wanted, served))


def _split(url: str) -> SplitResult:
    part = urlsplit(url.strip().rstrip("/").removesuffix("/chat/completions"))
    try:
        usable = part.scheme in ("http", "https") and bool(part.hostname) and (part.port is None or part.port > 0)
    except ValueError:
        usable = False
    if not usable:
        shown = redacted(url)
        raise ValueError(
            f"{shown!r} is no address of a judge; expected such as http://10.0.0.5:18901/v1 (LLM_AS_A_JUDGE_BASE, "
            "judge.base_urls)"
        )
    return part


def _without_login(part: SplitResult) -> str:
    return urlunsplit(part._replace(netloc=part.netloc.rpartition("@")[2]))


def _login(part: SplitResult) -> tuple[str, str] | None:
    return (unquote(part.username or ""), unquote(part.password or "")) if part.username or part.password else None
