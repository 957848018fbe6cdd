"""Panoply's writer and its events, against an SQS in this process: `.venv/bin/python examples/panoply_writer.py`."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tablecast.panoply import SDK, WriteFailed

try:
    import boto3
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server
except ImportError:
    sys.exit(
        "moto and boto3 are missing, which this example has for an SQS: pip install 'moto[server,sqs]' boto3"
    )

# What Panoply gives out for a data source; the queue's address is made of it.
APIKEY = "acct/rand1"
APISECRET = base64.b64encode(b"rand2/uuid/123456789012/us-east-1").decode()


class Quiet(WSGIRequestHandler):
    def log(self, *arguments: Any) -> None:
        pass


@contextmanager
def queue() -> Iterator[tuple[Any, str]]:
    """A client of a queue, and the queue's address."""
    server = make_server("127.0.0.1", 0, create_backend_app("sqs"), threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("sqs", endpoint_url=url, region_name="us-east-1", **keys)
    try:
        yield client, client.create_queue(QueueName="sdk-acct-rand2")["QueueUrl"]
    finally:
        server.shutdown()
        server.server_close()


def failed(error: WriteFailed) -> None:
    print(f"error: {len(error.records)} records, sent again: {error.retryable}")
    repaired.set()


repaired = threading.Event()
with queue() as (client, address), SDK(APIKEY, APISECRET) as sdk:
    sdk.on("send", lambda data: print(f"send: attempt {data['req'].attempt}, {data['req'].records} records"))
    sdk.on("flush", lambda data: print(f"flush: status {data['res'].status}"))
    sdk.on("error", failed)

    sdk.qurl = "http://127.0.0.1:1/nobody/listens-here"  # an outage
    for n in range(3):
        sdk.write("events", {"n": n, "text": "hé ☃"})  # returns at once
    repaired.wait(30)
    sdk.qurl = address
    sdk.flush()

    try:
        sdk.write("events", {"n": {1, 2}})
    except TypeError as error:
        print("misuse:", error)

    (message,) = client.receive_message(QueueUrl=address, MessageAttributeNames=["All"])["Messages"]
    print("in the queue, for Panoply to read:")
    for line in filter(None, message["Body"].split("\n")):
        print(" ", json.loads(line))
