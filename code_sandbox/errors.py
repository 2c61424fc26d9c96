"""What the sandbox client raises.

    SandboxError
    +-- SandboxUnavailable    no server answered, or none had room within the time allowed
    +-- SessionLost           the session is gone: lease ended, an answer missed, or it could not be made again elsewhere
    +-- SandboxRequestRefused the server refused the request itself; a bug of the caller

All of them are *our* outages. What the model's program does wrong (an exception, a timeout, a killed kernel) is no
error here but an `ExecuteResult` with a status.
"""


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
