"""What the sandbox client raises.

    SandboxError
    +-- SandboxUnavailable    no server answered, or none had room within the time allowed
    +-- SessionLost           the server no longer knows the session: lease ended or server restarted
    +-- SandboxRequestRefused the server refused the request itself; a bug of the caller

All of them are *our* outages. What the model's program does wrong (an exception, a timeout, a killed kernel) is no
error here but an `ExecuteResult` with a status.
"""


class SandboxError(Exception):
    """The sandbox could not do its work; says nothing about the code that was to run."""


class SandboxUnavailable(SandboxError):
    """No server answered, or all of them were full for longer than the client waits."""


class SessionLost(SandboxError):
    """The session is gone, with its variables: its lease ended or its server was restarted."""


class SandboxRequestRefused(SandboxError):
    """The server answered 4xx to the request itself, such as an unreadable image."""
