"""V3IO's key-values, on an embedded server: `.venv/bin/python examples/v3io_items.py`."""

from __future__ import annotations

from datetime import UTC, datetime

from protocols.v3io.server import V3ioServer
from tablecast import v3io

FAMILY = {
    "bob": {"age": 42, "feature": "moustache"},
    "linda": {"age": 41, "feature": "singing"},
    "louise": {"age": 9, "feature": "bunny ears", "scores": [1.5, 2.5]},
}

with (
    V3ioServer(port=0) as server,
    v3io.dataplane.Client(endpoint=server.url, access_key="any") as client,
):
    for key, attributes in FAMILY.items():
        client.kv.put("users", "family", key, attributes)
    client.kv.update("users", "family", "louise", attributes={"born": datetime(2017, 1, 1, tzinfo=UTC)})
    print("get:", client.kv.get("users", "family", "louise").output.item)

    client.kv.update(
        "users", "family", "bob", expression="age = age + 1; SET visits = if_not_exists(visits, 0) + 1"
    )
    item = client.kv.get("users", "family", "bob", attribute_names=["age", "visits", "__name"]).output.item
    print("update by an expression:", item)

    try:
        client.kv.put("users", "family", "bob", {"age": 1}, condition="NOT exists(age)")
    except v3io.HttpResponseError as error:
        print("a condition that does not hold: status", error.status_code)

    print("cursor:")
    adults = client.kv.new_cursor(
        "users", "family", filter_expression="age > 15", attribute_names=["__name", "age"]
    )
    for item in adults:
        print("  ", item)
    page = client.kv.scan("users", "family", limit=2).output
    print("scan: a page of", len(page.items), "items, the last one:", page.last)

    for number in range(20):
        client.batch.kv.put("users", "numbers", str(number), {"n": number})
    print("batch, all done:", client.batch.wait().success)

    try:
        client.kv.put("users", "family", "bob", {"age": None})
    except v3io.InvalidAttribute as error:
        print("refused at the call:", error)

    # The flat calls do the same, with full paths.
    client.put_items("users", "family", {"gene": {"age": 11}, "tina": {"age": 13}})
    client.update_item("users", "family/gene", attributes={"feature": "music"})
    print("get_item:", client.get_item("users", "family/gene").output.item)
    young = client.new_items_cursor(
        "users", "family", filter_expression="age < 15", attribute_names=["__name"]
    )
    print("new_items_cursor:", [item["__name"] for item in young.all()])
    print("delete_item: status", client.delete_item("users", "family/gene").status_code)
