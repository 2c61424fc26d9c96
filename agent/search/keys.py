"""Keys of providers: from the settings or the environment, and nowhere else."""

from __future__ import annotations

import os

from pydantic import SecretStr

from agent.search.web import WebClient


def api_key(given: SecretStr | None, variable: str, web: WebClient) -> str:
    """The key, which from now on is cut out of what the client says.

    Raises:
        ValueError: There is none; names the variable.
    """
    key = given.get_secret_value() if given is not None else os.environ.get(variable, "")
    if not key:
        raise ValueError(f"search provider {web.source!r} needs a key: set {variable}")
    web.keep_secret(key)
    return key
