"""The flat calls of the official ``v3io`` package, which take full paths: ``put_item(container, "table/key", …)``.

Each is one of the groups' by another name, with the same arguments and failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from protocols.v3io.official import calls
from protocols.v3io.official.calls import Body
from protocols.v3io.official.model import Model, R
from protocols.v3io.official.response import Allowed
from protocols.v3io.official.stream import Stream


class Flat(Model[R]):
    """Calls on a client, or a batch, itself."""

    def get_containers(
        self, access_key: str | None = None, raise_for_status: Allowed = None, transport_actions: None = None
    ) -> R:
        """List the containers: ``output.containers``, each with name, creation_date and identifier."""
        return self._do(calls.get_containers(), access_key, raise_for_status, transport_actions)

    def get_container_contents(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        get_all_attributes: bool | None = None,
        directories_only: bool | None = None,
        limit: int | None = None,
        marker: str | None = None,
    ) -> R:
        """As ``container.list``."""
        call = calls.list_directory(
            container,
            path,
            get_all_attributes=get_all_attributes,
            directories_only=directories_only,
            limit=limit,
            marker=marker,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get_object(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        offset: int | None = None,
        num_bytes: int | None = None,
    ) -> R:
        """As ``object.get``."""
        call = calls.get_object(container, path, offset, num_bytes)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def put_object(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        body: Body = None,
        append: bool | None = None,
    ) -> R:
        """As ``object.put``."""
        call = calls.put_object(container, path, body, append)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def delete_object(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """As ``object.delete``."""
        call = calls.delete_object(container, path)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def put_item(
        self,
        container: str,
        path: str,
        attributes: Mapping[str, Any],
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        condition: str | None = None,
    ) -> R:
        """As ``kv.put``."""
        call = calls.put_item(container, path, attributes, condition)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def update_item(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        attributes: Mapping[str, Any] | None = None,
        expression: str | None = None,
        condition: str | None = None,
        update_mode: str | None = None,
        alternate_expression: str | None = None,
    ) -> R:
        """As ``kv.update``."""
        call = calls.update_item(
            container,
            path,
            attributes=attributes,
            expression=expression,
            condition=condition,
            update_mode=update_mode,
            alternate_expression=alternate_expression,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get_item(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        attribute_names: str | Iterable[str] = "*",
    ) -> R:
        """As ``kv.get``."""
        call = calls.get_item(container, path, attribute_names)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get_items(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        table_name: str | None = None,
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
        """As ``kv.scan``."""
        call = calls.get_items(
            container,
            path,
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

    def delete_item(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """As ``kv.delete``."""
        return self.delete_object(container, path, access_key, raise_for_status, transport_actions)

    def create_schema(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        key: str | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> R:
        """As ``kv.create_schema``."""
        call = calls.create_schema(container, path, key, fields)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def create_stream(
        self,
        container: str,
        path: str,
        shard_count: int,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        retention_period_hours: int | None = None,
    ) -> R:
        """As ``stream.create``."""
        call = calls.create_stream(container, path, shard_count, retention_period_hours)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def update_stream(
        self,
        container: str,
        path: str,
        shard_count: int,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """As ``stream.update``."""
        call = calls.update_stream(container, path, shard_count)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def delete_stream(
        self, container: str, path: str, access_key: str | None = None, raise_for_status: Allowed = None
    ) -> R:
        """As ``stream.delete``."""
        return Stream(self._plane, self._run).delete(container, path, access_key, raise_for_status)

    def describe_stream(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """As ``stream.describe``."""
        call = calls.describe_stream(container, path)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def seek_shard(
        self,
        container: str,
        path: str,
        seek_type: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        starting_sequence_number: int | None = None,
        timestamp_sec: int | None = None,
        timestamp_nsec: int | None = None,
    ) -> R:
        """As ``stream.seek``; `path` is that of the shard: ``"stream/1"``."""
        call = calls.seek_shard(
            container,
            path,
            seek_type,
            starting_sequence_number=starting_sequence_number,
            timestamp_sec=timestamp_sec,
            timestamp_nsec=timestamp_nsec,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def put_records(
        self,
        container: str,
        path: str,
        records: Sequence[Mapping[str, Any]],
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """As ``stream.put_records``."""
        call = calls.put_records(container, path, records)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get_records(
        self,
        container: str,
        path: str,
        location: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        limit: int | None = None,
    ) -> R:
        """As ``stream.get_records``; `path` is that of the shard: ``"stream/1"``."""
        call = calls.get_records(container, path, location, limit)
        return self._do(call, access_key, raise_for_status, transport_actions)
