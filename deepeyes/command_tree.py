"""The parsers of all programs as one tree, for what wants to see every option: completion in a shell, and tests."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from functools import partial

from code_sandbox.command_line import parser_of


def whole_tree(make: Callable[[], argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `deepeyes` with the parsers of the programs that it passes on to; all rooms are imported.

    Args:
        make: The parser of `deepeyes`, in which a program is a command with the defaults `module` and `prog`.
    """
    tree = make()
    _fill(tree)
    return tree


def _fill(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, command in action.choices.items():
            module = command.get_default("module")
            if module is None:
                _fill(command)
                continue
            try:
                main = importlib.import_module(module).main
            except ModuleNotFoundError:  # its extra is not installed
                continue
            action.choices[name] = parser_of(partial(main, prog=command.get_default("prog")))
