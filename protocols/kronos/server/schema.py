"""The schema that Kronos infers from sample events: the fold of their types, newest to oldest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_DRAFT = "http://json-schema.org/draft-04/schema"
_NULL: dict[str, Any] = {"type": "null"}
_ANY: dict[str, Any] = {"type": "any"}


def infer_schema(events: Iterable[Any]) -> dict[str, Any]:
    """The JSON schema of `events`, given newest first."""
    return {"$schema": _DRAFT, **_fold(events)}


def _fold(values: Iterable[Any]) -> dict[str, Any]:
    schema = _NULL
    for value in values:
        schema = _combine(schema, _type_of(value))
    return schema


def _type_of(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return _NULL
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": _fold(value)}
        case dict():
            properties = {name: _type_of(item) for name, item in value.items()}
            return {"type": "object", "properties": properties, "required": sorted(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _combine(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    if a == _NULL:
        return b
    if a == b:
        return a
    types = {a["type"], b["type"]}
    if types == {"integer", "number"}:
        return {"type": "number"}
    if types == {"array"}:
        return {"type": "array", "items": _combine(a["items"], b["items"])}
    if types == {"object"}:
        left, right = a["properties"], b["properties"]
        properties = left | right
        for name in left.keys() & right.keys():
            properties[name] = _combine(left[name], right[name])
        return {
            "type": "object",
            "properties": properties,
            "required": sorted(set(a["required"]) & set(b["required"])),
        }
    return _ANY
