"""The client against moto's SQS server, and against servers that fail."""

from __future__ import annotations

import base64
import json
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from protocols.panoply import wire
from protocols.panoply.client import PanoplyClient
from protocols.panoply.errors import MessageRefused, PanoplyError, TransientError
from tests.sqs import APIKEY, Queue, secret

CREDENTIALS = wire.Credentials(APIKEY, secret())


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def failure(url: str, credentials: wire.Credentials = CREDENTIALS) -> PanoplyError:
    client = PanoplyClient(credentials, url, timeout=5.0)
    with pytest.raises(PanoplyError) as caught:
        client.send(b"{}\n\n")
    client.close()
    for secret_part in (APIKEY, credentials.apisecret, "rand2", "rand9"):
        assert secret_part not in str(caught.value) + repr(caught.value) + repr(client)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    return caught.value


def test_a_message_arrives_as_it_was_encoded(queue: Queue) -> None:
    client = PanoplyClient(CREDENTIALS, queue.url)
    client.send(
        wire.encode_record("tablename", {"foo": "b+r & = % ☃ \n x"}) + wire.encode_record("t2", {"a": 1})
    )
    (message,) = queue.messages()
    first, second = [json.loads(line) for line in message["Body"].split("\n") if line]
    assert first == {"foo": "b+r & = % ☃ \n x", "__table": "tablename"}
    assert second == {"a": 1, "__table": "t2"}
    assert message["MD5OfBody"] == "0840240ffa2ad034fcb9fbe942d1957d"
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes == {"key": APIKEY, "secret": secret(), "sdk": "panoply-python-sdk-3.2.0"}
    client.close()


def test_a_secret_with_a_plus_arrives_whole(queue: Queue) -> None:
    plus = base64.b64encode(b"rand2/u~~>>>~/123456789012/us-east-1").decode()
    assert "+" in plus
    PanoplyClient(wire.Credentials(APIKEY, plus), queue.url).send(b"{}\n\n")
    (message,) = queue.messages()
    assert message["MessageAttributes"]["secret"]["StringValue"] == plus


def test_a_queue_that_does_not_exist(queue: Queue) -> None:
    error = failure(queue.url, wire.Credentials(APIKEY, secret(rand="rand9")))
    assert isinstance(error, MessageRefused)
    assert not error.retryable
    assert "NonExistentQueue; check apikey and apisecret" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (503, "", TransientError, "status 503"),
        (429, "", TransientError, "status 429"),
        (403, "<Code>RequestThrottled</Code>", TransientError, "RequestThrottled; try again"),
        (400, "<Code>OverLimit</Code>", TransientError, "OverLimit"),
        (403, "<Code>AccessDenied</Code>", MessageRefused, "AccessDenied; check apikey"),
        (302, "", MessageRefused, "status 302"),
        (200, "<MD5OfMessageBody>" + "0" * 32 + "</MD5OfMessageBody>", TransientError, "does not confirm"),
        (200, "<html>welcome to the hotel's wifi</html>", TransientError, "does not confirm"),
    ],
)
def test_answers(status: int, body: str, kind: type[PanoplyError], text: str) -> None:
    with answering(status, body) as url:
        error = failure(url)
    assert type(error) is kind
    assert text in str(error)


def test_nobody_there() -> None:
    with answering(200, "") as url:
        pass
    error = failure(url)
    assert error.retryable
    assert "ConnectionError" in str(error)
