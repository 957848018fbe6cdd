"""The SDK against moto's SQS, against a queue that fails on order, and in processes that end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from protocols.accumulator import BufferFull, RecordTooLarge
from protocols.batching import Closed, NotDelivered, RecordsRejected
from protocols.panoply import sdk as sdk_module
from protocols.panoply.errors import PanoplyError, WriteFailed
from protocols.panoply.sdk import SDK
from tests.sqs import APIKEY, Queue, secret

DEADLINE = 20.0
SECRETS = (APIKEY, secret(), "rand2", "123456789012")


def nested(depth: int) -> dict[str, Any]:
    """A dict in a dict in a dict ..."""
    record: dict[str, Any] = {}
    for _ in range(depth):
        record = {"x": record}
    return record


class Bare(ThreadingHTTPServer):
    """A queue that keeps records, after doing what :attr:`plan` has for a message: a status and code, or ``"lost"``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: deque[tuple[int, str] | str] = deque()
        self.messages: list[list[dict[str, Any]]] = []
        self.forms: list[bytes] = []
        self.paths: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def numbers(self) -> list[int]:
        return [record["n"] for message in self.messages for record in message]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # connections are broken on purpose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bare

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"]))
        planned = self.server.plan.popleft() if self.server.plan else ""
        if isinstance(planned, tuple):
            return self._answer(planned[0], f"<Code>{planned[1]}</Code>")
        message = parse_qs(form.decode())["MessageBody"][0]
        self.server.paths.add(self.path)
        self.server.forms.append(form)
        self.server.messages.append([json.loads(line) for line in message.split("\n") if line])
        if planned == "lost":
            self.close_connection = True
            return None
        digest = hashlib.md5(message.encode(), usedforsecurity=False).hexdigest()
        return self._answer(200, f"<MD5OfMessageBody>{digest}</MD5OfMessageBody>")

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bare]:
    class Quick:
        def __init__(self, **settings: Any) -> None:
            pass

        def delay(self, failures: int) -> float:
            return 0.001

    monkeypatch.setattr(sdk_module, "Backoff", Quick)
    with Bare() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make(url: str, **settings: Any) -> SDK:
    return SDK(APIKEY, secret(), url=url, timeout=DEADLINE, **settings)


def test_records_arrive_at_a_real_queue(queue: Queue) -> None:
    with make(queue.url) as sdk:
        sdk.write("t", {"foo": "b+r & = % ☃ \n x", "__table": "user"})
        sdk.write("t2", {"at": datetime(2026, 1, 1, tzinfo=UTC), "day": date(2026, 1, 1), 1: None})
        sdk.flush(DEADLINE)
        (message,) = queue.messages()
    assert [json.loads(line) for line in message["Body"].split("\n") if line] == [
        {"foo": "b+r & = % ☃ \n x", "__table": "t"},
        {"at": "2026-01-01T00:00:00+00:00", "day": "2026-01-01", "1": None, "__table": "t2"},
    ]
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes == {"key": APIKEY, "secret": secret(), "sdk": "panoply-python-sdk-3.2.0"}


def test_the_address_is_public_and_can_be_changed(bare: Bare) -> None:
    sdk = SDK("acct/rand1", b"cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg==")
    assert sdk.qurl == "https://sqs.region.amazonaws.com/awsaccount/sdk-acct-rand2"
    assert (sdk.apikey, sdk.apisecret) == ("acct/rand1", "cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg==")
    sdk.qurl = f"{bare.url}/some/queue"
    sdk.write("t", {"n": 1})
    sdk.close(DEADLINE)
    assert (bare.numbers, bare.paths) == ([1], {"/some/queue"})
    for address in ("nonsense", "http://x:99999/some/queue", "http://x:port/some/queue"):
        with pytest.raises(ValueError, match="looks like"):
            sdk.qurl = address


def test_the_senders_constants(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sdk_module.MAXSIZE, sdk_module.FLUSH_TIMEOUT) == (256_000, 2.0)
    monkeypatch.setattr(sdk_module, "FLUSH_TIMEOUT", 0.01)
    with make(bare.url) as sdk:
        arrived = threading.Event()
        sdk.on("flush", lambda data: arrived.set())
        sdk.write("t", {"n": 1})
        assert arrived.wait(DEADLINE)  # nobody flushed


def test_messages_are_bounded_and_in_order(bare: Bare) -> None:
    with make(bare.url) as sdk:
        for n in range(3000):
            sdk.write("t", {"n": n, "text": "x y" * 30})
        sdk.write(
            "t", {"n": 3000, "text": '"' * 60_000}
        )  # 360,000 characters encoded, but not more than a queue takes
        sdk.write("t", {"n": 3001})
    assert bare.numbers == list(range(3002))
    sizes = [len(form.split(b"&")[1]) - len("MessageBody=") for form in bare.forms]
    assert max(sizes[:-2]) <= 256_000
    assert sizes[0] > 255_000
    assert [len(message) for message in bare.messages[-2:]] == [1, 1]


def test_events(bare: Bare) -> None:
    told: list[tuple[Any, ...]] = []
    bare.plan.extend([(503, "busy"), ""])
    with make(bare.url) as sdk:
        assert sdk.on("send", lambda data: told.append(("send", data["req"].attempt))) is sdk
        sdk.on("flush", lambda data: told.append(("flush", data["req"].records, data["res"].read()[:5])))
        sdk.on("error", lambda error: told.append(("error", error)))
        sdk.on("*", lambda name, data: told.append(("*", name)))
        sdk.on("mine", lambda data: told.append(("mine", data)))
        sdk.write("t", {"n": 1})
        sdk.flush(DEADLINE)
        assert sdk.fire("mine", 5) is sdk
    [error] = [each[1] for each in told if each[0] == "error"]
    assert [each for each in told if each[0] != "error"] == [
        ("*", "send"),
        ("send", 1),
        ("*", "error"),
        ("*", "send"),
        ("send", 2),
        ("*", "flush"),
        ("flush", 1, b"<MD5O"),
        ("*", "mine"),
        ("mine", 5),
    ]
    assert isinstance(error, WriteFailed)
    assert (error.retryable, error.attempt, error.records) == (True, 1, [{"n": 1, "__table": "t"}])
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    assert bare.numbers == [1]


@pytest.mark.parametrize(
    "plan",
    [
        [(500, "InternalError"), (429, "Throttling")],
        [(403, "AccessDenied")] * 3,
        [(400, "AWS.SimpleQueueService.NonExistentQueue")],
    ],
)
def test_what_may_pass_is_sent_again(plan: list[tuple[int, str]], bare: Bare) -> None:
    bare.plan.extend(plan)
    errors: list[WriteFailed] = []
    with make(bare.url) as sdk:
        sdk.on("error", errors.append)
        sdk.write("t", {"n": 1})
        sdk.flush(DEADLINE)
        assert sdk.problem is None
    assert bare.numbers == [1]
    assert [error.retryable for error in errors] == [True] * len(plan)


def test_a_lost_answer_is_sent_again(bare: Bare) -> None:
    bare.plan.append("lost")
    with make(bare.url) as sdk:
        sdk.write("t", {"n": 1})
        sdk.flush(DEADLINE)
    assert bare.numbers == [1, 1]  # at least once


def test_refused_records_come_back_and_the_others_are_sent(bare: Bare) -> None:
    too_long = (400, "MessageTooLong")
    bare.plan.extend(
        [too_long, "", too_long, too_long, ""]
    )  # of 4: the first half taken, then 2 refused, 3 taken
    errors: list[WriteFailed] = []
    with make(bare.url) as sdk:
        sdk.on("error", errors.append)
        for n in range(4):
            sdk.write("t", {"n": n})
        with pytest.raises(RecordsRejected, match="MessageTooLong") as caught:
            sdk.flush(DEADLINE)
        assert [rejection.record.record["n"] for rejection in caught.value.rejections] == [2]
    assert bare.numbers == [0, 1, 3]
    [error] = errors
    assert (error.retryable, [record["n"] for record in error.records]) == (False, [2])


def test_refused_records_come_back_as_they_were_written(bare: Bare) -> None:
    record = {"n": 2**70, "text": r"😀 \ud800", "x": 1.5}
    bare.plan.append((400, "MessageTooLong"))
    errors: list[WriteFailed] = []
    with make(bare.url) as sdk:
        sdk.on("error", errors.append)
        sdk.write("t", record)
        with pytest.raises(RecordsRejected):
            sdk.flush(DEADLINE)
    assert errors[0].records == [{**record, "__table": "t"}]


def test_a_handler_that_raises_harms_nobody(bare: Bare, caplog: pytest.LogCaptureFixture) -> None:
    def bad(data: Any) -> None:
        raise SystemExit("handler")

    with caplog.at_level(logging.CRITICAL), make(bare.url) as sdk:
        for name in ("send", "flush", "error"):
            sdk.on(name, bad)
        for n in range(3):
            sdk.write("t", {"n": n})
            sdk.flush(DEADLINE)
    assert bare.numbers == [0, 1, 2]


def test_the_buffer_is_bounded() -> None:
    sdk = SDK(APIKEY, secret(), url="http://127.0.0.1:1", buffer_bytes=1000, timeout=1.0)
    written = 0
    with contextlib.suppress(BufferFull):
        while True:
            sdk.write("t", {"n": written})
            written += 1
    assert sdk.pending == written > 3
    with pytest.raises(NotDelivered) as caught:
        sdk.flush(0.05)
    assert caught.value.pending == written
    with pytest.raises(NotDelivered):
        sdk.close(0.05)
    sdk.close()


def test_credentials_do_not_show(bare: Bare, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    bare.plan.extend([(403, "AccessDenied"), (400, "MessageTooLong")])
    with caplog.at_level(logging.DEBUG, "protocols"), make(bare.url) as sdk:
        sdk.on("*", lambda name, data: seen.extend(data.values() if isinstance(data, dict) else [data]))
        sdk.write("t", {"n": 1})
        with pytest.raises(RecordsRejected) as caught:
            sdk.flush(DEADLINE)
        shown = [repr(sdk), str(caught.value), caplog.text, *map(repr, seen), *map(str, seen)]
        shown += [repr(vars(each)) for each in seen]
    for part in SECRETS:
        assert not [text for text in shown if part in text]


@pytest.mark.parametrize(
    ("arguments", "settings", "kind"),
    [
        ((5, secret()), {}, TypeError),
        ((APIKEY, None), {}, TypeError),
        ((APIKEY, "!!!"), {}, ValueError),
        ((APIKEY, b"\xff"), {}, ValueError),
        (("", secret()), {}, ValueError),
        ((APIKEY, secret()), {"timeout": 0}, ValueError),
        ((APIKEY, secret()), {"timeout": "1"}, TypeError),
        ((APIKEY, secret()), {"max_message_bytes": 10}, ValueError),
        ((APIKEY, secret()), {"url": "nonsense"}, ValueError),
        ((APIKEY, secret()), {"url": "http://host:99999"}, ValueError),
        ((APIKEY, secret()), {"url": 5}, TypeError),
        ((APIKEY, secret()), {"compress": True}, TypeError),
    ],
)
def test_misuse_of_the_constructor(
    arguments: tuple[Any, Any], settings: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        SDK(*arguments, **settings)
    assert secret() not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda sdk: sdk.write(5, {}), TypeError, "table must be str"),
        (lambda sdk: sdk.write("", {}), ValueError, "no name"),
        (lambda sdk: sdk.write("t", [1]), TypeError, "a record is a dict, not a list"),
        (lambda sdk: sdk.write("t", {"x": {1}}), TypeError, "set has no form in JSON"),
        (lambda sdk: sdk.write("t", {"x": b""}), TypeError, "bytes has no form in JSON"),
        (lambda sdk: sdk.write("t", {"x": math.nan}), ValueError, "JSON"),
        (lambda sdk: sdk.write("t", {"x": ["\ud800"]}), ValueError, "half of a surrogate pair"),
        (lambda sdk: sdk.write("t", nested(100_000)), ValueError, "nested too deep"),
        (lambda sdk: sdk.flush("x"), TypeError, "timeout must be a number"),
        (lambda sdk: sdk.write("t", {"x": "y" * 300_000}), RecordTooLarge, "bytes"),
        (lambda sdk: sdk.on("send", None), TypeError, "a handler of 'send' is a function"),
        (lambda sdk: sdk.on(5, print), TypeError, "name is a str"),
    ],
)
def test_misuse_is_told_at_the_call(call: Any, kind: type[Exception], text: str) -> None:
    with SDK(APIKEY, secret(), url="http://127.0.0.1:1") as sdk:
        with pytest.raises(kind, match=text):
            call(sdk)
        assert sdk.pending == 0
    for use in (lambda: sdk.write("t", {}), sdk.flush):
        with pytest.raises(Closed, match="closed; make another"):
            use()


def test_errors_have_one_base() -> None:
    assert issubclass(WriteFailed, PanoplyError)


EXITING = """
import os, sys
from protocols.panoply import sdk
sdk.FLUSH_TIMEOUT = 60.0
client = sdk.SDK(sys.argv[1], sys.argv[2], url=sys.argv[3])
for n in range(200):
    client.write("parent", {"n": n})
if not (child := os.fork()):
    client.write("child", {"n": 1000})
    sys.exit()
os.waitpid(child, 0)
raise ValueError("of the script")
"""


def test_processes_that_end_lose_nothing(bare: Bare) -> None:
    command = [sys.executable, "-W", "ignore", "-c", EXITING, APIKEY, secret(), bare.url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "ValueError: of the script" in done.stderr
    assert sorted(bare.numbers) == [*range(200), 1000]
