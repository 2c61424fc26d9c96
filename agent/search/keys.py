"""Keys of providers: from the environment and nowhere else, for recipes are recorded."""

from __future__ import annotations

import os

from agent.search.web import WebClient


def api_key(variable: str, web: WebClient) -> str:
    """The key, which from now on is cut out of what the client says.

    Raises:
        ValueError: There is none; names the variable.
    """
    # A key that was read from a file often ends with its line.
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"search provider {web.source!r} needs a key: set {variable}")
    web.keep_secret(key)
    return key
