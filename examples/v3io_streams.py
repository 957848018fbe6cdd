"""V3IO's streams, blocking and with asyncio, on an embedded server: `.venv/bin/python examples/v3io_streams.py`."""

from __future__ import annotations

import asyncio

from protocols.v3io.server import V3ioServer
from tablecast import v3io


def blocking(url: str) -> None:
    with v3io.dataplane.Client(endpoint=url, access_key="any") as client:
        client.stream.create("users", "clicks", shard_count=4, retention_period_hours=12)
        print("describe:", vars(client.stream.describe("users", "clicks").output))
        records = [
            {"data": "first", "shard_id": 1},
            {"data": "second", "shard_id": 1, "client_info": "from the example"},
            {"data": b"\x00\x01", "partition_key": "somebody"},
            {"data": "nowhere", "shard_id": 99},
        ]
        output = client.stream.put_records("users", "clicks", records).output
        print("put_records:", output.failed_record_count, "refused:", output.records[3].error_message)

        location = client.stream.seek("users", "clicks", 1, "EARLIEST").output.location
        page = client.stream.get_records("users", "clicks", 1, location, limit=10).output
        for record in page.records:
            print("get_records:", record.sequence_number, record.data, record.client_info)

        # Reading goes on where the page before ended.
        client.put_records("users", "clicks", [{"data": "third", "shard_id": 1}])
        page = client.get_records("users", "clicks/1", page.next_location).output
        print("later:", [record.data for record in page.records], "behind:", page.records_behind_latest)
        found = client.seek_shard("users", "clicks/1", "SEQUENCE", starting_sequence_number=2).output.location
        print(
            "from a sequence number:",
            len(client.get_records("users", "clicks/1", found).output.records),
            "records",
        )

        client.stream.update("users", "clicks", shard_count=8)
        print("delete: status", client.delete_stream("users", "clicks").status_code)


async def with_asyncio(url: str) -> None:
    async with v3io.aio.dataplane.Client(endpoint=url, access_key="any") as client:
        await client.stream.create("users", "clicks", shard_count=3)
        puts = [
            client.stream.put_records("users", "clicks", [{"data": str(n), "shard_id": n}]) for n in range(3)
        ]
        print("asyncio, put:", [response.status_code for response in await asyncio.gather(*puts)])
        for shard in range(3):
            location = (await client.stream.seek("users", "clicks", shard, "EARLIEST")).output.location
            page = (await client.stream.get_records("users", "clicks", shard, location)).output
            print(f"asyncio, shard {shard}:", [record.data for record in page.records])


with V3ioServer(port=0) as server:
    blocking(server.url)
    asyncio.run(with_asyncio(server.url))
