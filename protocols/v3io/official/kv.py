"""Calls to the items of tables, ``client.kv``; see ``model.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from protocols.v3io.official import calls
from protocols.v3io.official.dataplane import Dataplane, Job
from protocols.v3io.official.model import Model, R
from protocols.v3io.official.response import Allowed, check_allowed

C = TypeVar("C")


class Kv(Model[R]):
    """Key-values: the items of tables, each with attributes of its own.

    Attributes are text, integers, floats, booleans, bytes, datetimes (naive ones are local time; read back in UTC),
    and lists or arrays of integers or of floats.
    """

    def put(
        self,
        container: str,
        table_path: str,
        key: str,
        attributes: Mapping[str, Any],
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        condition: str | None = None,
    ) -> R:
        """Replace an item, if `condition` holds for what is there; else status 400. Makes the table as needed."""
        call = calls.put_item(container, calls.item_path(table_path, key), attributes, condition)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def update(
        self,
        container: str,
        table_path: str,
        key: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        attributes: Mapping[str, Any] | None = None,
        expression: str | None = None,
        condition: str | None = None,
        update_mode: str | None = None,
        alternate_expression: str | None = None,
    ) -> R:
        """Set some `attributes` of an item, or run an `expression` on it, if `condition` holds for what is there.

        Args:
            expression: for example ``"hits = if_not_exists(hits, 0) + 1; REMOVE old"``; not with `attributes`.
            update_mode: None for ``"CreateOrReplaceAttributes"``.
            alternate_expression: run instead where `condition` does not hold.
        """
        call = calls.update_item(
            container,
            calls.item_path(table_path, key),
            attributes=attributes,
            expression=expression,
            condition=condition,
            update_mode=update_mode,
            alternate_expression=alternate_expression,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get(
        self,
        container: str,
        table_path: str,
        key: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        attribute_names: str | Iterable[str] = "*",
    ) -> R:
        """Read an item: ``output.item``. ``"*"`` are the users' attributes, ``"**"`` the system's as well."""
        call = calls.get_item(container, calls.item_path(table_path, key), attribute_names)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def scan(
        self,
        container: str,
        table_path: str,
        table_name: str | None = None,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        attribute_names: str | Iterable[str] = "*",
        filter_expression: str | None = None,
        marker: str | None = None,
        sharding_key: str | None = None,
        limit: int | None = None,
        segment: int | None = None,
        total_segments: int | None = None,
        sort_key_range_start: str | None = None,
        sort_key_range_end: str | None = None,
    ) -> R:
        """Read a page of a table: ``output.items``, ``output.last`` and ``output.next_marker``.

        Args:
            table_name: of a table within `table_path`, which may be "".
            filter_expression: which items to read, for example ``"age > 15"``.
            marker: the ``next_marker`` of the page before.
            limit: most items of the page.
            sharding_key: read only the keys that are this, or begin with this and a period.
            segment: which of `total_segments` to read, from 0.
            sort_key_range_start: with `sharding_key`, the first sort key, the part behind the period.
            sort_key_range_end: the first sort key not to read.
        """
        call = calls.get_items(
            container,
            table_path,
            table_name=table_name,
            attribute_names=attribute_names,
            filter_expression=filter_expression,
            marker=marker,
            sharding_key=sharding_key,
            limit=limit,
            segment=segment,
            total_segments=total_segments,
            sort_key_range_start=sort_key_range_start,
            sort_key_range_end=sort_key_range_end,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def delete(
        self,
        container: str,
        table_path: str,
        key: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Delete an item."""
        call = calls.delete_object(container, calls.item_path(table_path, key))
        return self._do(call, access_key, raise_for_status, transport_actions)

    def create_schema(
        self,
        container: str,
        table_path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        key: str | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> R:
        """Say what a table holds, for systems that want to know.

        Args:
            key: name of the attribute that is the key.
            fields: for example ``[{"name": "age", "type": "long", "nullable": False}]``; types are string, double
                and long.
        """
        call = calls.create_schema(container, table_path, key, fields)
        return self._do(call, access_key, raise_for_status, transport_actions)


class KvWithCursors(Kv[R], Generic[R, C]):
    """The calls of a client, which reads whole tables as well; `cursor` makes its cursors."""

    def __init__(
        self,
        plane: Dataplane,
        run: Callable[[Job], R],
        cursor: Callable[[Callable[[str | None, int | None], R], str | None, int | None], C],
    ) -> None:
        super().__init__(plane, run)
        self._cursor = cursor

    def new_cursor(
        self,
        container: str,
        table_path: str,
        table_name: str | None = None,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        attribute_names: str | Iterable[str] = "*",
        filter_expression: str | None = None,
        marker: str | None = None,
        sharding_key: str | None = None,
        limit: int | None = None,
        segment: int | None = None,
        total_segments: int | None = None,
        sort_key_range_start: str | None = None,
        sort_key_range_end: str | None = None,
    ) -> C:
        """Read a table, page by page as its items are taken; arguments as of :meth:`scan`.

        Args:
            marker: of a cursor, to go on behind the pages that it has read.
            limit: most items in all.
        """
        self._plane.check(access_key, None)
        check_allowed(raise_for_status)
        query: dict[str, Any] = {
            "table_name": table_name,
            "attribute_names": calls.joined_names(attribute_names),
            "filter_expression": filter_expression,
            "sharding_key": sharding_key,
            "segment": segment,
            "total_segments": total_segments,
            "sort_key_range_start": sort_key_range_start,
            "sort_key_range_end": sort_key_range_end,
        }
        calls.get_items(container, table_path, marker=marker, limit=limit or None, **query)

        def scan(marker: str | None, limit: int | None) -> R:
            return self.scan(
                container,
                table_path,
                access_key=access_key,
                raise_for_status=raise_for_status,
                marker=marker,
                limit=limit,
                **query,
            )

        return self._cursor(scan, marker, limit)
