"""Why a server does not do what it was asked. None of it is the fault of the code that was to run."""


class UnknownSession(Exception):
    """No server has this session: it was never opened, was closed, or its lease ended."""


class SessionHeld(Exception):
    """Another server has the session, and was alive a moment ago."""


class NotReplayable(Exception):
    """The session's server died, and its state could not be made again by running its cells again."""


class OutOfStep(Exception):
    """The caller has had fewer or more answers than the session has run cells."""


class TooManySessions(Exception):
    """The server is full, short of memory, or ending."""


class Overloaded(Exception):
    """Too many cells wait."""


class QueueTimeout(Exception):
    """No slot became free within the time that the caller allowed; nothing ran."""
