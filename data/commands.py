"""What `deepeyes data` can do. Each action is a module with `main(arguments, prog)`, loaded when it is asked for."""

from __future__ import annotations

ACTIONS = {
    "fetch": ("data.fetch", "download published training sets and benchmarks, when asked"),
    "make": ("data.make_family", "a family of synthetic tasks, for every stage"),
    "tiles": ("data.tiles", "the toy task: training data, benchmark, search pages"),
}
"""Action -> module, and what it does in a line."""
