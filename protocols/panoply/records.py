"""Rows and resources as data sources tell of them: groups of rows with what they are of. The names are the SDK's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NotRequired, TypedDict, TypeVar

Item = TypeVar("Item")


class Metadata(TypedDict):
    """Of which resource, and when in UTC: ``2026-11-21T00:52:57.298Z``."""

    resource_id: str
    timestamp: str


class Record(TypedDict):
    """One row."""

    data: dict[str, Any]
    metadata: Metadata


class RecordGroup(TypedDict):
    """Rows of one resource."""

    data: list[dict[str, Any]]
    metadata: Metadata


class Field(TypedDict):
    """A field of a resource."""

    name: str
    type: NotRequired[str]
    is_mandatory: NotRequired[bool]
    is_available: NotRequired[bool]


class Resource(TypedDict):
    """Something that a data source can read."""

    id: str
    title: str
    fields: NotRequired[list[Field]]
    available: NotRequired[bool]
    required: NotRequired[bool]
    requires: NotRequired[list[str]]


class UiItem(TypedDict):
    """An entry of a list to choose from."""

    name: Any
    value: Any
    disabled: bool
    requires: list[Any]


def to_record(resource: str, data: Any) -> RecordGroup:
    """The rows `data`, a dict or a list of dicts, as those of `resource`, as of now.

    Raises ``TypeError`` or ``ValueError``, see :func:`validate_resource` and :func:`normalize_data`.
    """
    validate_resource(resource)
    return {
        "data": normalize_data(data),
        "metadata": {"resource_id": resource, "timestamp": get_iso_string()},
    }


def validate_resource(resource: Any) -> None:
    """Raises ``TypeError`` for what is no text, ``ValueError`` for blank text."""
    if not isinstance(resource, str):
        raise TypeError("`resource` must be of a type string")
    if not resource.strip():
        raise ValueError("`resource` must be a non empty string")


def normalize_data(data: Any) -> list[dict[str, Any]]:
    """A dict in a list, or the list of dicts. Raises ``TypeError`` for anything else, or anything else in it."""
    if isinstance(data, dict):
        return [data]
    if not isinstance(data, list):
        raise TypeError("The data returned should be of the type list or dict.")
    if not all(isinstance(row, dict) for row in data):
        raise TypeError("Objects inside returned list should be of type dict.")
    return data


def get_iso_string() -> str:
    """The time in UTC, with milliseconds: ``2026-11-21T00:52:57.298Z``."""
    return f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def convert_to_ui_format(
    items: Iterable[Item] | None,
    create_name: Callable[[Item], Any],
    create_value: Callable[[Item], Any],
    is_disabled: Callable[[Item], bool] = lambda item: False,
    requires: Callable[[Item], list[Any]] = lambda item: [],
) -> list[UiItem] | None:
    """The entries of a list to choose from; None if there are none."""
    entries: list[UiItem] = [
        {
            "name": create_name(item),
            "value": create_value(item),
            "disabled": is_disabled(item),
            "requires": requires(item),
        }
        for item in items or ()
    ]
    return entries or None
