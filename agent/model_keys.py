"""Keys of model servers: from the environment and nowhere else, each for the server that it was given for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from code_sandbox.redaction import clean_key

KEY = "MODEL_API_KEY"
NO_KEY = "EMPTY"
"""What servers without a key are sent; vLLM's documentation writes it so."""
_OPENAI = "https://api.openai.com"


def model_key(base_urls: Sequence[str]) -> str:
    """The key of the servers that a run or a chat asks; NO_KEY if there is none for them.

    MODEL_API_KEY is for whatever server is named on the command line. OPENAI_API_KEY, which many have set for something
    else, goes to OpenAI, and to the server that OPENAI_BASE_URL names.

    Args:
        base_urls: All that will be asked; a key that is not for each of them is sent to none.

    Raises:
        ValueError: It cannot be sent; the key is not shown.
    """
    if key := clean_key(os.environ.get("MODEL_API_KEY", ""), KEY):
        return key
    known = {_origin(url) for url in (_OPENAI, os.environ.get("OPENAI_BASE_URL", "")) if url}
    key = clean_key(os.environ.get("OPENAI_API_KEY", ""), "OPENAI_API_KEY")
    return key if key and base_urls and all(_origin(url) in known for url in base_urls) else NO_KEY


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url, "", None
