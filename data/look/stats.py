"""Numbers about training files, before anything is trained on them.

    deepeyes data stats datasets/rl 'datasets/sft/json/*.json'      or a store's set: STORE/sets/NAME

Images are measured by their headers, or by what a store's rows say of them; `deepeyes data validate` decodes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from code_sandbox.command_line import CommandParser, add_json_option, print_json, program, sign_of_life
from data.look.command import add_paths, look_options, printable
from data.look.files import data_files
from data.look.numbers import statistics


def main(arguments: list[str] | None = None, prog: str = "deepeyes data stats") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    add_paths(parser)
    add_json_option(parser)
    given = parser.parse_args(arguments)
    with program(prog):
        with sign_of_life("reading"):
            found = statistics(data_files(given.paths), look_options(given.image_root))
        if given.json:
            print_json(found)
        else:
            sys.stdout.writelines(printable(line) + "\n" for line in _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for file in found["files"]:
        what = "rows" if file["kind"] == "rl" else "conversations"
        yield f"{file['file']}: {file['rows']:,} {what}, {file['bytes']:,} bytes"
        yield from (f"    {column}: {kind}" for column, kind in file["schema"].items())
    for one in found["schema_differences"]:
        kinds = "; ".join(f"{kind} in {_some([Path(name).name for name in names])}" for kind, names in one["types"].items())
        yield f"files differ in {one['column']}: {kinds}"
    yield ""
    yield f"rows              {found['rl_rows']:,} for RL, {found['conversations']:,} conversations"
    if found["rl_rows"]:
        yield f"data_source       {_counts(found['data_sources'])}"
        yield f"RL with images    {found['rl_rows_with_images']:,} of {found['rl_rows']:,}"
    yield f"source            {_counts(found['sources'])}"
    yield f"prompt, chars     {_quantiles(found['prompt_chars'])}"
    if found["rl_rows"]:
        yield f"gold, chars       {_quantiles(found['gold_chars'])}"
    if found["conversations"]:
        yield from _conversation_lines(found)
    for name in ("question_images", "tool_images"):
        images = found[name]
        yield f"{name.replace('_', ' '):17} {images['count']:,}"
        if images["count"]:
            yield f"    pixels        {_quantiles(images['pixels'])}"
            yield f"    tokens        {_quantiles(images['tokens'])}; {images['tokens']['sum']:,} in all"
    yield f"                  {found['image_rule']}"
    duplicates = found["duplicates"]
    yield f"duplicates        {duplicates['rows']:,} rows with the question and images of an earlier one"
    yield from (f"    {example}" for example in duplicates["examples"])
    broken = found["broken"]
    yield f"broken            {broken['rows']:,} rows, by text and headers; `validate` decodes images too"
    yield from (f"    {one['number']:,}: {one['example']}" for one in broken["kinds"].values())


def _conversation_lines(found: dict[str, Any]) -> Iterator[str]:
    total, shown = found["conversations"], found["conversations_with_images"]
    yield f"conversations     {shown:,} with images, {total - shown:,} without"
    yield f"turns             {_quantiles(found['turns'])}; {found['answers']:,} answers, " + (
        f"{found['turns_without_action']:,} without an action"
    )
    yield "tools             " + ", ".join(
        f"{name}: {one['conversations']:,} conversations" + (f", {one['calls']:,} calls" if one["calls"] else "")
        for name, one in found["tools"].items()
    )


def _quantiles(values: dict[str, int]) -> str:
    return f"p50 {values['p50']:,}, p99 {values['p99']:,}, max {values['max']:,}"


def _counts(values: dict[str, int]) -> str:
    shown = list(values.items())[:20]
    more = f" and {len(values) - len(shown)} more" if len(values) > len(shown) else ""
    return ", ".join(f"{name} {number:,}" for name, number in shown) + more


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
