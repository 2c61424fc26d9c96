"""Two audiences for what goes wrong.

ToolError               the model's mistake: becomes an observation, the episode goes on
EpisodeFailure          our outage: ends the episode as FAILED, never scored, counted
+-- ToolUnavailable     a tool's server is down (sandbox, search)
|   +-- ToolBroken      a fault in our code for a tool; the log has where
|   +-- SandboxAway     the episode's session is lost or could not be opened; another session may do
|   +-- ReplayMiss      a recorded run asks what was never recorded
|   +-- BudgetExhausted the money or calls set aside for a run are spent: no further episode is begun
+-- PolicyUnavailable   the model server is down or answered nonsense
|   +-- ReplyWithheld   the server keeps the reply back by rules of its own; it will the next time, too
ContextFull             the next observation does not fit the model's context: the episode ends, scored as it stands
"""

from code_sandbox.command_line import MISTAKE, OUTAGE


class ToolError(Exception):
    """The model called a tool wrongly; the message is what it will read."""

    exit_status = MISTAKE
    """Of a command whose user did."""


class EpisodeFailure(Exception):
    """Our machinery broke; says nothing about the model."""

    exit_status = OUTAGE
    ends_run = False
    """Whether going on with other episodes is pointless."""


class ToolUnavailable(EpisodeFailure):
    """A tool could not do its work for a reason outside the episode."""


class ToolBroken(ToolUnavailable):
    """Our own code for a tool, or for showing what it gave, has a fault."""


class SandboxAway(ToolUnavailable):
    """The sandbox is away, full, or has lost the episode's session; the episode may be played again in a new one."""


class ReplayMiss(ToolUnavailable):
    """The recording does not hold what was asked."""


class BudgetExhausted(ToolUnavailable):
    """The calls or the money set aside for a run are spent."""

    ends_run = True


class PolicyUnavailable(EpisodeFailure):
    """The model could not be asked."""


class ReplyWithheld(PolicyUnavailable):
    """The server's own rules forbid the question or its reply: asking again gives nothing else."""


class ContextFull(Exception):
    """The policy has no room for the next observation and a reply to it."""
