"""Keys of providers: from the environment and nowhere else, for recipes are recorded."""

from __future__ import annotations

import os

from agent.search.web import WebClient
from code_sandbox.redaction import clean_key


def api_key(variable: str, web: WebClient) -> str:
    """The key, which from now on is cut out of what the client says.

    Raises:
        ValueError: There is none, or it cannot be sent; names the variable.
    """
    key = clean_key(os.environ.get(variable, ""), variable)
    if not key:
        raise ValueError(f"search provider {web.source!r} needs a key: set {variable}")
    web.keep_secret(key)
    return key
