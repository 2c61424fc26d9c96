"""What the sandbox's command lines have in common: how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from code_sandbox.errors import SandboxError


def end_with(prog: str, run: Callable[[], int | None]) -> NoReturn:
    """Run a program, and end as it says; an error that a user can mend is one line, without a traceback.

    Args:
        prog: How the program was called, for that line.
        run: Gives the exit status; None is 0.

    Raises:
        SystemExit: Always.
    """
    try:
        sys.exit(run() or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, LookupError, RuntimeError, SandboxError) as error:
        sys.exit(f"{prog}: {error}")
