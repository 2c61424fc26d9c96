"""Names under which a server on this machine answers: called by any other, a page in a browser could read it through DNS
rebinding.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def answers_to(host: str, names: Collection[str]) -> bool:
    """Whether a server may be called so.

    Args:
        host: The `Host` header of a request.
        names: In lower case, besides addresses and localhost; `*` for any.
    """
    if "*" in names:
        return True
    name = urlsplit(f"//{host}").hostname if host.isprintable() and "/" not in host else None
    if name is None:
        return False
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
