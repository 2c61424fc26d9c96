"""Make training sets ready once: images by name in a store, rows in one schema, every row that cannot be used named.

    deepeyes data prepare rl 'datasets/rl/*.parquet' --out datasets/store --licence apache-2.0
    deepeyes data prepare sft datasets/sft/json --image-root datasets/sft --out datasets/store
    deepeyes data prepare search-cache datasets/search_cache/fvqa_train_image_search_results_cache.json --out datasets/store

Sources are read as they are published, and never changed. A run that was ended goes on where it was; one that is done
writes nothing. The set is STORE/sets/NAME: `rl.parquet`, `sft.json` or `search_cache.json`, `dropped.jsonl`, a manifest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from code_sandbox.command_line import CommandParser, program, sign_of_life
from data.look.command import add_image_root, printable
from data.prepare.rows import RowNames
from data.prepare.search_cache import prepare_search_cache
from data.prepare.sets import SetSettings, prepare_set


def main(arguments: list[str] | None = None, prog: str = "deepeyes data prepare") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("kind", choices=("rl", "sft", "search-cache"), help="what the rows are for")
    parser.add_argument("source", nargs="+", help="files, patterns, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="the store; made if it is not there")
    parser.add_argument("--name", help="of the set; by default the kind's")
    add_image_root(parser)
    parser.add_argument("--from", dest="origin", default="", metavar="NAME", help="where rows that do not say it come from")
    parser.add_argument("--licence", default="", help="of rows that do not say it")
    parser.add_argument("--group", default="", help="of rows that do not say it, for mixing")
    parser.add_argument(
        "--quick", action="store_true", help="do not decode plain JPEG and PNG files whose end says that they are whole"
    )
    given = parser.parse_args(arguments)
    name = given.name or given.kind.replace("-", "_")
    with program(prog, note="the same command begins again"), sign_of_life("preparing"):
        if given.kind == "search-cache":
            folder, manifest, is_new = prepare_search_cache(given.source, given.out, name, given.image_root)
        else:
            settings = SetSettings(
                kind=given.kind,
                names=RowNames(source=given.origin, licence=given.licence, group=given.group),
                image_roots=tuple(given.image_root),
                quickly=given.quick,
            )
            folder, manifest, is_new = prepare_set(given.source, given.out, name, settings)
    sys.stdout.writelines(f"{printable(line)}\n" for line in _lines(folder, manifest, is_new))


def _lines(folder: Path, manifest: dict[str, Any], is_new: bool) -> list[str]:
    counts = manifest["counts"]
    dropped = counts["dropped"]
    lines = [
        f"{folder}: {counts['rows']:,} rows, {counts['different_images']:,} images; "
        f"{sum(one['number'] for one in dropped.values()):,} dropped"
    ]
    lines += [f"  {one['number']:,} x {kind}, such as {one['first']}" for kind, one in dropped.items()]
    lines += [f"  {note}" for note in manifest["notes"]]
    return lines if is_new else [f"{lines[0]}. It was prepared before; nothing was written"]
