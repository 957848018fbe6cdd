"""An SQS server of the moto package in this process, with a queue on it as Panoply makes them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

APIKEY = "acct/rand1"


def secret(rand: str = "rand2", account: str = "123456789012", region: str = "us-east-1") -> str:
    return base64.b64encode(f"{rand}/uuid/{account}/{region}".encode()).decode()


@dataclass(frozen=True)
class Queue:
    """A queue at `url`, read by the official client."""

    url: str
    address: str
    client: Any

    def messages(self) -> list[dict[str, Any]]:
        """Take all messages from the queue."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.client.receive_message(
                QueueUrl=self.address, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                self.client.delete_message(QueueUrl=self.address, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)

    def records(self) -> list[dict[str, Any]]:
        """Take all records from the queue, read as Panoply reads them."""
        bodies = [message["Body"] for message in self.messages()]
        return [json.loads(line) for body in bodies for line in body.split("\n") if line]


@contextmanager
def serve(name: str = "sdk-acct-rand2") -> Iterator[Queue]:
    """Run a server until the end of the block."""
    # Not moto's own dispatcher, which tells services apart by signatures: Panoply's requests have none.
    server = make_server(
        "127.0.0.1", 0, create_backend_app("sqs"), threaded=True, request_handler=MotoRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "sqs",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    try:
        yield Queue(url, client.create_queue(QueueName=name)["QueueUrl"], client)
    finally:
        client.purge_queue(QueueUrl=f"{url}/123456789012/{name}")
        client.delete_queue(QueueUrl=f"{url}/123456789012/{name}")
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()
