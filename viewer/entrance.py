"""Where a page is served: on loopback without ado, beyond it with a token in the link."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORT = 8765
VIEWER = f"http://127.0.0.1:{DEFAULT_PORT}/"
"""Where `deepeyes view` is, unless it is told otherwise."""
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what is asked for is recognised


@dataclass(frozen=True, slots=True)
class Entrance:
    """An open port, and who may come in."""

    listener: socket.socket
    token: str
    """Empty on loopback. See `PageAccess`."""
    hosts: tuple[str, ...]
    """See `PageAccess`."""
    link: str
    """For people, with the token in it."""

    @property
    def port(self) -> int:
        """That is listened on."""
        port: int = self.listener.getsockname()[1]
        return port


def open_entrance(host: str, port: int, allowed_hosts: Sequence[str] = ()) -> Entrance:
    """Listen.

    Args:
        host: An address or name of this machine.
        port: 0 is any that is free.
        allowed_hosts: Names under which the page is reached, besides addresses and localhost; beyond loopback all, if none
            is given: there the token decides.

    Raises:
        OSError: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or give another --port"
        ) from error
    is_loopback = host in _LOOPBACK
    token = "" if is_loopback else secrets.token_urlsafe(24)
    hosts = tuple(allowed_hosts) if is_loopback else tuple(allowed_hosts) or ("*",)
    name = socket.gethostname() if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    link = f"http://{name}:{listener.getsockname()[1]}/{f'?token={token}' if token else ''}"
    return Entrance(listener, token, hosts, link)
