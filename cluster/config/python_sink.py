"""The settings of a ``python`` sink: which functions of the user's are called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from actors.names import FEED_SUFFIXES
from cluster.config.types import Kind, Section
from cluster.config.yaml_source import KeyPath


def _function(text: str) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+", text):
        raise ValueError("not a function; write MODULE:FUNCTION")
    return text


def _called(value: Any) -> Any:
    return {"call": value} if isinstance(value, str) else value


Function = Annotated[str, Kind("function, `module:name`"), AfterValidator(_function)]


class PythonCall(Section):
    """A function for one kind of event; in the file its name alone will do."""

    call: Function = Field(description="The function, importable on every node.")
    error: Function | None = Field(
        default=None, description="Called with one line of text when the function raised."
    )


Call = Annotated[PythonCall, Kind("function, `module:name`"), BeforeValidator(_called)]


class PythonCallbacks(Section):
    """The functions, by what they are called for."""

    insert_decoded: Call | None = Field(
        default=None,
        description="Called with each inserted row as a dict; or a mapping of `call` and `error`.",
    )
    insert_raw: Call | None = Field(default=None, description="With each inserted row as received, bytes.")
    insert_batch: Call | None = Field(
        default=None, description="With inserted rows as an Arrow record batch, up to a block's."
    )
    updated: Call | None = Field(default=None, description="With a number of rows that were updated, an int.")
    deleted: Call | None = Field(default=None, description="With a number of rows that were deleted, an int.")
    table_altered: Call | None = Field(default=None, description="With what changed about the table, a text.")
    table_dropped: Call | None = Field(default=None, description="With that the table is gone, a text.")


class PythonSink(Section):
    """Functions of your own, see docs/callbacks.md."""

    callbacks: PythonCallbacks = Field(
        description="The functions, by what they are called for; at least one."
    )
    values: Annotated[Literal["official", "python"], Kind("official or python")] = Field(
        default="official",
        description="The values of rows as dicts: as the official client shows them (a `date` is text), or what they "
        "mean (a `datetime.date`).",
    )


def python_contradictions(data: Any, name: str, sink: Any) -> Iterator[tuple[KeyPath, str]]:
    """What no single value of the ``python`` sink `name` of a file shows to be wrong."""
    if not isinstance(sink, dict):
        return
    callbacks = sink.get("callbacks")
    if isinstance(callbacks, dict) and not any(callbacks.values()):
        kinds = ", ".join(PythonCallbacks.model_fields)
        yield ("sinks", name, "python", "callbacks"), f"names no function; write one of {kinds}"
    tables = data.get("tables")
    for index, table in enumerate(tables if isinstance(tables, list) else ()):
        called, sinks = (table.get("name"), table.get("sinks")) if isinstance(table, dict) else (None, None)
        if not isinstance(called, str) or (isinstance(sinks, (list, tuple)) and name not in sinks):
            continue
        if called.endswith(FEED_SUFFIXES):
            yield (
                ("tables", index, "name"),
                f"a python sink takes its rows for those of another table's feed, by the name's end; "
                f"let its sinks be others than {name}",
            )
