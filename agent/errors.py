"""Two audiences for what goes wrong.

ToolError               the model's mistake: becomes an observation, the episode goes on
EpisodeFailure          our outage: ends the episode as FAILED, never scored, counted
+-- ToolUnavailable     a tool's server is down (sandbox, search)
+-- PolicyUnavailable   the model server is down or answered nonsense
ContextFull             the next observation does not fit the model's context: the episode ends, scored as it stands
"""


class ToolError(Exception):
    """The model called a tool wrongly; the message is what it will read."""


class EpisodeFailure(Exception):
    """Our machinery broke; says nothing about the model."""


class ToolUnavailable(EpisodeFailure):
    """A tool could not do its work for a reason outside the episode."""


class PolicyUnavailable(EpisodeFailure):
    """The model could not be asked."""


class ContextFull(Exception):
    """The policy has no room for the next observation and a reply to it."""
