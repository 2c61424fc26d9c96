"""Plugins by the name of their file."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def plugin_names(package: str) -> list[str]:
    """Names of the plugins in a package, sorted."""
    module = importlib.import_module(package)
    return sorted(info.name for info in pkgutil.iter_modules(module.__path__) if not info.name.startswith("_"))


def load_plugin(package: str, name: str) -> ModuleType:
    """Import `<package>.<name>`.

    Raises:
        LookupError: There is no such file; the message lists those that are.
    """
    if name not in plugin_names(package):
        raise LookupError(f"no {name!r} in {package}; there are: {', '.join(plugin_names(package))}")
    return importlib.import_module(f"{package}.{name}")
