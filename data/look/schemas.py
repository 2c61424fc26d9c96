"""The columns of files and their types, and where files differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.json_items import json_items
from data.look.files import RowsFile

_LOOKED_AT = 1000
"""Conversations by which the keys of a JSON file are told."""
_JSON_NAMES = {"NoneType": "null", "str": "text", "dict": "object", "int": "number", "float": "number", "bool": "bool"}


def schema_of(file: RowsFile) -> dict[str, str]:
    """Type by column, structs by their fields; of JSON by its first elements. Empty for a file that cannot be read."""
    try:
        return _parquet_schema(file) if file.kind == "rl" else _json_schema(file)
    except OSError:
        return {}


def _parquet_schema(file: RowsFile) -> dict[str, str]:
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file.path)
    except pyarrow.ArrowException:
        return {}
    found: dict[str, str] = {}
    for column in schema:
        _flatten(column.name, column.type, found)
    return found


def _flatten(path: str, kind: Any, found: dict[str, str]) -> None:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        for item in kind:
            _flatten(f"{path}.{item.name}", item.type, found)
    else:
        found[path] = str(kind)


def _json_schema(file: RowsFile) -> dict[str, str]:
    kinds: dict[str, set[str]] = {}
    looked = 0
    for item in json_items(file.path):
        if isinstance(item.value, dict):
            for key, value in item.value.items():
                kinds.setdefault(str(key), {"absent"} if looked else set()).add(_json_type(value))
            for key in kinds.keys() - item.value.keys():
                kinds[key].add("absent")
            looked += 1
        if looked >= _LOOKED_AT:
            break
    return {key: " or ".join(sorted(found)) for key, found in sorted(kinds.items())}


def _json_type(value: Any) -> str:
    if isinstance(value, list):
        inside = sorted({_json_type(one) for one in value[:100]})
        return f"list of {' or '.join(inside)}" if inside else "empty list"
    return _JSON_NAMES.get(type(value).__name__, type(value).__name__)


def schema_differences(schemas: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Columns that not all files of a kind have with one type: `{column, types: {type or "absent": [files]}}`.

    Args:
        schemas: Schema by file; files of conversations and of RL rows are compared among themselves.
    """
    differences = []
    for ending in (True, False):
        files = {name: schema for name, schema in schemas.items() if schema and name.endswith(".parquet") == ending}
        for column in sorted({column for schema in files.values() for column in schema}):
            types: dict[str, list[str]] = {}
            for name, schema in files.items():
                types.setdefault(schema.get(column, "absent"), []).append(name)
            if len(types) > 1:
                differences.append({"column": column, "types": types})
    return differences
