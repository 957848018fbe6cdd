"""What pydantic found wrong in a pipeline file, said in the file's own terms and never quoting a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cluster.config.yaml_source import show_path

_KINDS = {
    NoneType: "nothing",
    bool: "true or false",
    int: "a number",
    float: "a fraction",
    str: "text",
    list: "a list",
    dict: "a mapping",
}

_EXPECTED = {
    "string_type": "must be text, not {found}; put the value in quotes",
    "int_type": "must be a whole number, not {found}; write digits without quotes",
    "float_type": "must be a number, not {found}; write digits without quotes",
    "bool_type": "must be true or false, not {found}; write true or false without quotes",
    "tuple_type": "must be a list, not {found}; write [a, b], or a line `- item` for each",
    "dict_type": "must be a mapping, not {found}; write lines `key: value` below it",
    "model_type": "must be a mapping, not {found}; write lines `key: value` below it",
    "greater_than": "must be more than {gt:g}; raise it",
    "greater_than_equal": "must be at least {ge:.0f}; raise it",
    "less_than_equal": "must be at most {le:.0f}; lower it",
    "finite_number": "must be a finite number; write digits",
    "string_too_long": "longer than {max_length} characters; shorten it",
    "literal_error": "must be {expected}; write one of these",
}


def describe(error: ErrorDetails, root: type[BaseModel]) -> str:
    """``what is wrong; what to do`` for one error of validating `root`."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "required key is missing; add it"
    if kind == "extra_forbidden":
        *parents, key = error["loc"]
        return f"unknown key; {hint(str(key), _keys_at(root, parents))}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(found=_KINDS.get(type(error["input"]), "a date or time"), **context)
    return "not valid here; see docs/configuration.md"


def hint(word: str, known: Iterable[str]) -> str:
    """What was probably meant by `word`, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {show_path((close[0],))}?"
    return f"known here: {', '.join(show_path((name,)) for name in known) or 'none'}"


def inner(annotation: Any) -> Any:
    """The type below ``X | None``, ``Annotated``, a list or a mapping: what one key or item holds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return inner(next(argument for argument in arguments if argument is not NoneType))
    if origin is Annotated:
        return inner(arguments[0])
    if origin is tuple:
        return inner(arguments[0])
    if origin is dict:
        return inner(arguments[1])
    return annotation


def _keys_at(root: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    model: Any = root
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = inner(model.model_fields[part].annotation)
    return [field.alias or name for name, field in model.model_fields.items()]
