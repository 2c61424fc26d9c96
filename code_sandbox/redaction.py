"""Secrets are taken out of whatever is shown, logged or written down: one function, for all rooms.

It stands here because the sandbox is installed alone and nobody is below it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

T = TypeVar("T")
HIDDEN = "***"
_LEAST_CHARS = 8
"""A shorter value of a variable, such as `EMPTY` or `none`, is no key, and its letters stand in other words."""
_LOGIN = re.compile(r"(?<=://)(?:[^/?#\s\"'<>]*@|[^\s/\"'<>@:]*:(?:(?!://)[^\s\"'<>])*@)")
"""Up to the last @ of the host, also where a password holds a stroke that should have been %2F."""
_NAME = r"(?:[a-z0-9]+[-_])*(?:api[-_]?key|key|token|secret|password|passwd|pwd|signature|sig|credentials?)"
_IN_QUERY = re.compile(rf"(?<=[?&;])({_NAME})=[^&;#\s\"'<>]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_BASIC = re.compile(r"\b(Basic)\s+([A-Za-z0-9+/]{4,}={0,2})", re.IGNORECASE)
_NAMED = re.compile(
    r"(?<![A-Za-z0-9])((?:[A-Za-z0-9]+[-_])*(?:api[-_]?key|access[-_]?key|secret(?:[-_](?:access[-_])?key)?|password|passwd"
    r"|(?:access|auth|hf|hub|api|bearer|session)[-_]?token)[\"']{0,2}\s*[:=]\s*[\"']?)"
    r"(?=[^\s\"'<>,;&]*\d)[^\s\"'<>,;&]{8,}",
    re.IGNORECASE,
)
"""As a header, an assignment or a field that a server repeats; without a digit it is a word of a sentence."""
_KNOWN_FORMS = re.compile(
    r"\b(?:(?:sk|pk|rk)-[\w-]{16,}|(?:hf|gh[pousr]|github_pat|glpat|nvapi|gsk|xai|tvly|pplx|r8|lin_api)[-_][\w-]{16,}|AKIA[0-9A-Z]{16}"
    r"|AIza[\w-]{30,}|xox[a-z]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
"""Keys that show by their beginning whose they are, whoever's they are."""
_SECRET_NAME = re.compile(
    r"(?:.*[-_])?(?:api[-_]?key|access[-_]?key|secret|password|passwd|pwd|credentials?|(?:access|auth|hf|hub|api|bearer)[-_]token)"
    r"|authorization",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"(?:.*_)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)")


def redacted(value: T, *secrets: str) -> T:
    """A value as it may be shown, logged or written down, with `***` in place of secrets.

    They are: names and passwords in front of a URL's host, keys in its query, what stands behind `Bearer` and `Basic`,
    values under a name such as `api_key`, keys of a known form such as `sk-…`, and whatever a variable of the environment
    with the name of a secret holds.

    Args:
        value: A text, or lists and mappings of them; what is no text stays as it is.
        secrets: More of them, such as `secrets_of` an address, whose server may repeat them in its own words.
    """
    known = sorted({*(secret for secret in secrets if secret), *_of_the_environment()}, key=len, reverse=True)
    shown: T = _redacted(value, known)
    return shown


def _redacted(value: Any, known: Iterable[str]) -> Any:
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, HIDDEN)
        value = _KNOWN_FORMS.sub(HIDDEN, _NAMED.sub(rf"\1{HIDDEN}", value))
        value = _IN_QUERY.sub(rf"\1={HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", value))
        return _BASIC.sub(_without_login, _BEARER.sub(rf"\1 {HIDDEN}", value))
    if isinstance(value, dict):
        return {
            key: HIDDEN if isinstance(part, str) and part and names_secret(str(key)) else _redacted(part, known)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_redacted(part, known) for part in value)
    return value


def names_secret(name: str) -> bool:
    """Whether what stands under a name, of a setting or a variable, is a secret; `max_tokens` is none."""
    return _SECRET_NAME.fullmatch(name) is not None or _SECRET_VARIABLE.fullmatch(name) is not None


def secrets_of(*urls: str) -> tuple[str, ...]:
    """Passwords and keys that stand in addresses, in every form in which a server may repeat them."""
    found: list[str] = []
    for url in urls:
        try:
            parts = urlsplit(url)
            name, password = unquote(parts.username or ""), unquote(parts.password or "")
        except ValueError:  # the address is none, and nobody is asked
            continue
        login = base64.b64encode(f"{name}:{password}".encode("utf-8", "replace")).decode() if password else ""
        if not password and len(name) >= _LEAST_CHARS:  # a name alone is a token
            found += [name, parts.username or ""]
        found += [password, parts.password or "", quote(password, safe=""), login]
        found += [value for key, value in parse_qsl(parts.query) if re.fullmatch(_NAME, key, re.IGNORECASE)]
    return tuple(dict.fromkeys(part for part in found if len(part) > 1))


def clean_key(text: str, what: str) -> str:
    """A key without the line end that it often has when it was read from a file.

    Args:
        text: As it was set.
        what: Where it was set, for the error.

    Raises:
        ValueError: It holds what no header may hold. The key is not shown.
    """
    key = text.strip()
    bad = next((number for number, char in enumerate(key) if not "!" <= char <= "~"), None)
    if bad is not None:
        raise ValueError(
            f"{what} has {len(key)} characters, and number {bad + 1} is a blank, a line break or no ASCII, which no key "
            "holds: set it again, without what was copied beside it"
        )
    return key


def checked_url(url: str, what: str) -> str:
    """The address as it was given.

    Raises:
        ValueError: It is none, most often for a stroke in a password. Libraries say so by showing a part of that.
    """
    try:
        urlsplit(url).port  # noqa: B018 - it is read to be parsed
    except ValueError:
        raise ValueError(
            f"{redacted(url)!r} is no address of {what}; in a password, / ? # and @ are written %2F, %3F, %23 and %40"
        ) from None
    return url


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def redact_requests_log() -> None:
    """Take secrets out of what httpx logs of each request, where somebody has turned that on: the whole address."""
    for name in ("httpx", "httpx2"):  # the latter is what the library of MCP uses
        log = logging.getLogger(name)
        if not any(isinstance(one, _Redacting) for one in log.filters):
            log.addFilter(_Redacting())


def _of_the_environment() -> Iterable[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.fullmatch(name) and len(value.strip()) >= _LEAST_CHARS:
            yield value.strip()
        elif "://" in value and "@" in value:
            yield from (part for url in value.split(",") for part in secrets_of(url) if len(part) >= _LEAST_CHARS)


def _without_login(match: re.Match[str]) -> str:
    try:
        is_login = b":" in base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), validate=True)
    except (ValueError, binascii.Error):
        is_login = False
    return f"{match[1]} {HIDDEN}" if is_login else match[0]
