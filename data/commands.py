"""What `deepeyes data` can do. Each action is a module with `main(arguments, prog)`, loaded when it is asked for."""

from __future__ import annotations

ACTIONS = {
    "fetch": ("data.fetch", "download published training sets and benchmarks, when asked"),
    "make": ("data.make_family", "a family of synthetic tasks, for every stage"),
    "prepare": ("data.prepare.command", "training sets made ready once: images in a store, one schema, dropped rows named"),
    "stats": ("data.look.stats", "rows, sources, lengths, images, tools, duplicates and broken rows of training files"),
    "show": ("data.look.show", "one row of a training file as a person reads it"),
    "validate": ("data.look.validate", "every row through the readers that will train on it, images decoded"),
    "sample": ("data.look.sample", "a page of rows drawn at random, with their images"),
    "tiles": ("data.tiles", "the toy task: training data, benchmark, search pages"),
}
"""Action -> module, and what it does in a line."""
