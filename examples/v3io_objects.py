"""V3IO's objects and containers, on an embedded server: `.venv/bin/python examples/v3io_objects.py`."""

from __future__ import annotations

import io

from protocols.v3io.server import V3ioServer
from tablecast import v3io

with (
    V3ioServer(port=0) as server,
    # Without arguments, from V3IO_API and V3IO_ACCESS_KEY of the environment.
    v3io.dataplane.Client(endpoint=server.url, access_key="any") as client,
):
    print("containers:", *[container.name for container in client.get_containers().output.containers])

    client.object.put("users", "notes/hello.txt", body="hello")
    client.object.put("users", "notes/hello.txt", body=", you", append=True)
    client.object.put("users", "notes/file.bin", body=io.BytesIO(bytes(1000)))  # or a file opened as "rb"
    client.object.put("users", "notes/old/")  # a directory
    print("get:", client.object.get("users", "notes/hello.txt").body.decode())
    print("get a part:", client.object.get("users", "notes/hello.txt", offset=7, num_bytes=3).body.decode())
    print("head:", client.object.head("users", "notes/file.bin").headers["Content-Length"], "bytes")

    listing = client.container.list("users", "notes").output
    print("list:", {content.key: content.size for content in listing.contents})
    print("list, directories:", *[prefix.prefix for prefix in listing.common_prefixes])

    try:
        client.object.get("users", "notes/none.txt")
    except v3io.HttpResponseError as error:
        print("a failure:", error)
    response = client.object.get("users", "notes/none.txt", raise_for_status=[200, 404])
    print("a status that is allowed:", response.status_code)

    for number in range(16):
        client.batch.object.put("users", f"many/{number}", body=f"object {number}")
    print("batch:", [response.status_code for response in client.batch.wait()])

    # The flat calls do the same.
    client.put_object("users", "notes/flat.txt", body="flat")
    print("get_object:", client.get_object("users", "notes/flat.txt").body.decode())
    print("delete_object: status", client.delete_object("users", "notes/flat.txt").status_code)
