"""Every error of the sandbox: what its client raises, and why its server does not do what it was asked.

    SandboxError              what a caller of the client sees
    +-- SandboxUnavailable    no server answered, or none had room within the time allowed
    +-- SessionLost           the session is gone: lease ended, an answer missed, or it could not be made again elsewhere
    +-- SandboxRequestRefused the server refused the request itself; a bug of the caller

    ServerError               inside a server, with the status that it answers
    +-- UnknownSession 404, OutOfStep 409, BlobsMissing 409, NotReplayable 410
    +-- BodyTooSlow 408, BodyTooLarge 413, BadRequest 422, BadImage 422, CallerGone 499
    +-- TooManySessions 429, Overloaded 429    nothing ran; ask again
    +-- SessionHeld, QueueTimeout, StoreUnavailable, KernelStartFailed (ZygoteEnded) 503    likewise

None of them is the model's fault. What its program does wrong (an exception, a timeout, a killed process) is no error here
but an `ExecuteResult` with a status.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """The sandbox could not do its work; says nothing about the code that was to run."""


class SandboxUnavailable(SandboxError):
    """No server answered, or all of them were full for longer than the client waits."""


class SessionLost(SandboxError):
    """The session is gone, with its variables: closed, its lease ended, an answer was missed, or its server died and its
    cells did not do the same again on another one.
    """


class SandboxRequestRefused(SandboxError):
    """The server answered 4xx to the request itself, such as an unreadable image."""


class ServerError(Exception):
    """A server does not do what it was asked."""

    status: ClassVar[int]
    """Of the answer."""
    later: ClassVar[bool] = False
    """Whether the caller may ask again, here or elsewhere: nothing ran."""


class UnknownSession(ServerError):
    """No server has this session: it was never opened, was closed, or its lease ended."""

    status = 404


class OutOfStep(ServerError):
    """The caller has had fewer or more answers than the session has run cells."""

    status = 409


class BlobsMissing(ServerError):
    """A session refers to files that were not uploaded here."""

    status = 409

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"{len(missing)} images are not on this server: PUT /v1/blobs/<sha256> and ask again")
        self.missing = missing


class NotReplayable(ServerError):
    """The session's process was lost by us, and its state could not be made again by running its cells again."""

    status = 410


class BodyTooSlow(ServerError):
    """A body that took too long to arrive."""

    status = 408


class BodyTooLarge(ServerError):
    """A body above the limit."""

    status = 413


class BadRequest(ServerError):
    """A body that is not what the route expects."""

    status = 422


class BadImage(ServerError):
    """A supplied file is not what it was said to be, or no readable image."""

    status = 422


class CallerGone(ServerError):
    """The caller hung up while it sent its request or its cell ran. Nobody reads the answer; its number is nginx's."""

    status = 499


class TooManySessions(ServerError):
    """The server is full, short of memory, or ending."""

    status, later = 429, True


class Overloaded(ServerError):
    """Too many cells wait."""

    status, later = 429, True


class SessionHeld(ServerError):
    """Another server has the session, and was alive a moment ago."""

    status, later = 503, True


class QueueTimeout(ServerError):
    """No slot became free within the time that the caller allowed; nothing ran."""

    status, later = 503, True


class StoreUnavailable(ServerError, ConnectionError):
    """Redis did not answer."""

    status, later = 503, True


class KernelStartFailed(ServerError, RuntimeError):
    """A session did not come up."""

    status, later = 503, True


class ZygoteEnded(KernelStartFailed):
    """It ended, or was ended, before it had forked the session."""
