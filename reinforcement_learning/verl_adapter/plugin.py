"""Loaded by verl in every process (VERL_USE_EXTERNAL_MODULES): applies patches, registers the CPU platform."""

import os

from reinforcement_learning.verl_adapter import patches


def load() -> None:
    """Do it, again if need be: a process may have imported verl before its environment said what to load."""
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from reinforcement_learning.verl_adapter import cpu_platform  # noqa: F401
    patches.apply_early()


load()
