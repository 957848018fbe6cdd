from __future__ import annotations

from typing import Any

import pytest

from protocols.kronos.server.schema import infer_schema


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


@pytest.mark.parametrize(
    ("newest_first", "schema"),
    [
        ([None, 1], {"type": "integer"}),
        ([1, None], {"type": "any"}),
        ([1, 1.5], {"type": "number"}),
        ([1.5, 1], {"type": "number"}),
        ([True, 1], {"type": "any"}),
        (["a", 1, "a"], {"type": "any"}),
        ([[], [1]], array({"type": "integer"})),
        ([[1], []], array({"type": "any"})),
        ([[1, None]], array({"type": "any"})),
        ([[None, 1]], array({"type": "integer"})),
        (
            [{"b": 1, "a": {"x": 1}}, {"a": {"x": 1.5, "y": "t"}}],
            {
                "type": "object",
                "required": ["a"],
                "properties": {
                    "b": {"type": "integer"},
                    "a": {
                        "type": "object",
                        "required": ["x"],
                        "properties": {"x": {"type": "number"}, "y": {"type": "string"}},
                    },
                },
            },
        ),
    ],
)
def test_types_are_folded_newest_first(newest_first: list[Any], schema: dict[str, Any]) -> None:
    assert infer_schema(newest_first) == {"$schema": "http://json-schema.org/draft-04/schema", **schema}
