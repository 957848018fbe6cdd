"""The official asyncio client, whose paths begin with two slashes, on the embedded server; and ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from v3io.dataplane.response import HttpResponseError

import tablecast.v3io
from protocols.v3io.server import V3ioServer

from ..conftest import KEY, QuietLogger


def test_all_models(server: V3ioServer, package: Any) -> None:
    async def use() -> None:
        client = package.aio.dataplane.Client(logger=QuietLogger(), endpoint=server.url, access_key=KEY)
        try:
            await objects(client)
            await items(client)
            await streams(client)
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(use(), 20))


async def objects(client: Any) -> None:
    await client.object.put("users", "aio/ü x.txt", body="hello")
    await client.object.put("users", "aio/ü x.txt", body=" you", append=True)
    assert (await client.object.get("users", "aio/ü x.txt")).body == b"hello you"
    assert (await client.object.get("users", "aio/ü x.txt", offset=2, num_bytes=3)).body == b"llo"
    assert (await client.object.head("users", "aio/ü x.txt")).headers["Content-Length"] == "9"
    listing = (await client.container.list("users", "/aio")).output
    assert [entry.key for entry in listing.contents] == ["aio/ü x.txt"]
    assert (await client.object.delete("users", "aio/ü x.txt")).status_code == 204
    with pytest.raises((HttpResponseError, tablecast.v3io.HttpResponseError), match="No such file"):
        await client.object.get("users", "aio/ü x.txt")


async def items(client: Any) -> None:
    for i in range(9):
        await client.kv.put("users", "aio-table", f"k{i}", {"i": i, "t": [0.5]})
    await client.kv.update("users", "aio-table", "k0", expression="i = i - 1", condition="i == 0")
    assert (await client.kv.get("users", "aio-table", "k0")).output.item == {"i": -1, "t": [0.5]}
    cursor = client.kv.new_cursor("users", "aio-table", filter_expression="i > 4", limit=3)
    assert [item["i"] for item in await cursor.all()] == [5, 6, 7]
    assert (await client.object.delete("users", "aio-table/k0")).status_code == 204
    await client.kv.create_schema("users", "aio-table", key="i", fields=[])


async def streams(client: Any) -> None:
    await client.stream.create("users", "aio-stream", 2)
    await client.stream.update("users", "aio-stream", 3)
    assert (await client.stream.describe("users", "aio-stream")).output.shard_count == 3
    records = [{"data": "a", "shard_id": 2}, {"data": "b", "shard_id": 3}]
    assert (await client.stream.put_records("users", "aio-stream", records)).output.failed_record_count == 1
    location = (await client.stream.seek("users", "aio-stream", 2, "EARLIEST")).output.location
    got = (await client.stream.get_records("users", "aio-stream", 2, location)).output
    assert [record.data for record in got.records] == [b"a"]
    assert (await client.stream.delete("users", "aio-stream")).status_code == 204
