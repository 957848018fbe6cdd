"""Calls to streams, ``client.stream``; see ``model.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protocols.v3io.official import calls
from protocols.v3io.official.calls import Call
from protocols.v3io.official.model import Model, R
from protocols.v3io.official.response import Allowed, Response, check_allowed


class Stream(Model[R]):
    """Streams: records in shards."""

    def create(
        self,
        container: str,
        stream_path: str,
        shard_count: int,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        retention_period_hours: int | None = None,
    ) -> R:
        """Make a stream whose records are kept `retention_period_hours`, 24 if not given; status 409 if it is there."""
        call = calls.create_stream(container, stream_path, shard_count, retention_period_hours)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def update(
        self,
        container: str,
        stream_path: str,
        shard_count: int,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Give a stream more shards."""
        call = calls.update_stream(container, stream_path, shard_count)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def delete(
        self,
        container: str,
        stream_path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
    ) -> R:
        """Delete a stream with all that is in it.

        Several requests, to each of which `raise_for_status` applies; the response is that of the last. Where a
        status of 404 is allowed and the stream is missing, it is that of the listing.
        """
        directory = calls.delete_stream(container, stream_path)
        self._plane.check(access_key, None)
        own = check_allowed(raise_for_status)

        def job(default: Allowed) -> Response:
            def exchange(call: Call) -> Response:
                return self._plane.exchange(call, access_key, own or default)

            marker = None
            while True:
                listed = exchange(calls.list_directory(container, stream_path, marker=marker))
                if listed.status_code >= 300:
                    return listed
                for content in listed.output.contents:
                    exchange(calls.delete_object(container, content.key))
                if not listed.output.is_truncated:
                    return exchange(directory)
                marker = listed.output.next_marker

        return self._run(job)

    def describe(
        self,
        container: str,
        stream_path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Ask for ``output.shard_count`` and ``output.retention_period_hours``."""
        call = calls.describe_stream(container, stream_path)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def seek(
        self,
        container: str,
        stream_path: str,
        shard_id: int,
        seek_type: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        starting_sequence_number: int | None = None,
        timestamp_sec: int | None = None,
        timestamp_nsec: int | None = None,
    ) -> R:
        """Ask for a place in a shard to read from: ``output.location``.

        Args:
            seek_type: ``"EARLIEST"``; ``"LATEST"`` for records that come from now on; ``"SEQUENCE"`` for the record
                of `starting_sequence_number`; ``"TIME"`` for those that arrived from `timestamp_sec`, seconds since
                1970, and `timestamp_nsec` on.
        """
        call = calls.seek_shard(
            container,
            calls.shard_path(stream_path, shard_id),
            seek_type,
            starting_sequence_number=starting_sequence_number,
            timestamp_sec=timestamp_sec,
            timestamp_nsec=timestamp_nsec,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)

    def put_records(
        self,
        container: str,
        stream_path: str,
        records: Sequence[Mapping[str, Any]],
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Add at most 1000 records to a stream. Never sent twice: a lost reply does not tell whether they arrived.

        Look at ``output.failed_record_count``, and at the ``error_code`` of each of ``output.records``: a reply that
        says that some were refused is no error.

        Args:
            records: dicts with ``data``, text or bytes; ``shard_id`` or else ``partition_key`` to choose the shard;
                and ``client_info``, text or bytes.
        """
        call = calls.put_records(container, stream_path, records)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get_records(
        self,
        container: str,
        stream_path: str,
        shard_id: int,
        location: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        limit: int | None = None,
    ) -> R:
        """Read at most `limit` records from `location` on, of :meth:`seek` or the ``next_location`` of those before."""
        call = calls.get_records(container, calls.shard_path(stream_path, shard_id), location, limit)
        return self._do(call, access_key, raise_for_status, transport_actions)
