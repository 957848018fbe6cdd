"""The event stream against real publishers over TCP; a publisher is an XPUB, which tells when it is subscribed to."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import fastavro
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from protocols.kinetica import subscription as module
from protocols.kinetica.subscription import Link, Message, Subscription, topics_are_distinguishable
from protocols.kinetica.types import Column, TableType
from protocols.kinetica.wire import COUNT_SCHEMA

HOST = "127.0.0.1"
A, B = "a" * 36, "b" * 36
DEADLINE = 60.0


class Publisher:
    """A publisher that loses nothing, on a port of the system's choice or a given one."""

    def __init__(self, port: int = 0) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                self._socket.bind(f"tcp://{HOST}:{port or '*'}")
                break
            except zmq.ZMQError:  # the connection before lingers in the kernel
                assert time.monotonic() < deadline
                threading.Event().wait(0.02)
        self.port = int(self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rsplit(":", 1)[1])

    def wait_subscribed(self, topics: int = 1) -> None:
        for _ in range(topics):
            assert self._socket.poll(DEADLINE * 1000), "nobody subscribed"
            assert self._socket.recv()[0] == 1

    def send(self, topic: str, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart([topic.encode(), *frames])

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.close()
            self._context.term()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


Subscribe = Callable[..., Subscription]


@pytest.fixture
def subscribe(publisher: Publisher) -> Iterator[Subscribe]:
    made: list[Subscription] = []

    def subscribe(
        *topics: str, port: int | None = None, wait: bool = True, exact: bool = False
    ) -> Subscription:
        made.append(Subscription(HOST, port or publisher.port, topics, exact_topics=exact))
        if wait:
            assert made[-1].wait_connected(DEADLINE)
            publisher.wait_subscribed(len(topics))
        return made[-1]

    yield subscribe
    for subscription in made:
        subscription.close()


def collect(subscription: Subscription, done: Callable[[list[Message | Link]], bool]) -> list[Message | Link]:
    """Receive until `done`, or fail."""
    got: list[Message | Link] = []
    deadline = time.monotonic() + DEADLINE
    while not done(got):
        assert time.monotonic() < deadline, f"deadline; got {got[:5]} of {len(got)}"
        got += subscription.receive(100)
    return got


def messages(got: list[Message | Link]) -> list[Message]:
    return [item for item in got if isinstance(item, Message)]


def until(count: int) -> Callable[[list[Message | Link]], bool]:
    return lambda got: len(messages(got)) >= count


both_modes = pytest.mark.parametrize("exact", [False, True], ids=["rcvmore", "exact-topics"])


@both_modes
def test_messages_arrive_whole_in_order_and_by_topic(
    publisher: Publisher, subscribe: Subscribe, exact: bool
) -> None:
    subscription = subscribe(A, B, exact=exact)
    sent = [
        Message(A, [b"1", b"2", b""]),
        Message(B, [b"r" * len(B)]),
        Message(A, [b"3"]),
        Message(A, [b"x" * 99] * 500),
    ]
    for message in sent:
        publisher.send(*message)
    got = collect(subscription, until(len(sent)))
    assert got[0] is Link.CONNECTED
    assert messages(got) == sent


@both_modes
def test_a_topic_that_only_begins_like_ours_is_skipped(
    publisher: Publisher, subscribe: Subscribe, exact: bool
) -> None:
    subscription = subscribe("abc", exact=exact)
    for topic in ("abcd", "abc-other", "xabc"):
        publisher.send(topic, [b"foreign", b"frames"])
    publisher.send("abc", [b"ours"])
    assert messages(collect(subscription, until(1))) == [Message("abc", [b"ours"])]


def test_asking_zeromq_tells_foreign_topics_apart_in_the_middle_of_a_burst(
    publisher: Publisher, subscribe: Subscribe
) -> None:
    subscription = subscribe("abc")
    for _ in range(50):
        publisher.send("abc", [b"abc", b"ours"])  # a record equal to the topic id
        publisher.send("abcd", [b"foreign"])
    got = messages(collect(subscription, until(50)))
    assert got == [Message("abc", [b"abc", b"ours"])] * 50


@both_modes
@pytest.mark.parametrize(("operations", "frames"), [(200, 1000), (40_000, 1), (3, 45_000)])
def test_a_burst_arrives_without_loss_in_bounded_portions(
    publisher: Publisher, subscribe: Subscribe, exact: bool, operations: int, frames: int
) -> None:
    subscription = subscribe(A, B, exact=exact)

    def send() -> None:
        for operation in range(operations):
            publisher.send((A, B)[operation % 2], [b"%d" % (operation * frames + i) for i in range(frames)])

    sender = threading.Thread(target=send)
    sender.start()
    expected = 0
    seen = 0
    deadline = time.monotonic() + 2 * DEADLINE
    while seen < operations:
        assert time.monotonic() < deadline
        portion = messages(subscription.receive(100))
        assert sum(len(message.frames) for message in portion[:-1]) < module.MAX_FRAMES
        for message in portion:
            assert message.topic == (A, B)[seen % 2]
            assert message.frames[0] == b"%d" % expected
            assert len(message.frames) == frames
            assert message.frames[-1] == b"%d" % (expected + frames - 1)
            expected += frames
            seen += 1
    sender.join()
    assert messages(subscription.receive(0)) == []


@both_modes
def test_a_portion_ends_at_the_bound_of_bytes(
    publisher: Publisher, subscribe: Subscribe, exact: bool
) -> None:
    subscription = subscribe(A, exact=exact)
    big = bytes(module.MAX_BYTES // 4)
    for _ in range(10):
        publisher.send(A, [big])
    publisher.send(A, [b"end"])
    portions: list[int] = []
    deadline = time.monotonic() + DEADLINE
    while sum(portions) < 11:
        assert time.monotonic() < deadline
        portions.append(len(messages(subscription.receive(100))))
    assert max(portions) <= 4


def test_the_mode_may_change_between_calls(publisher: Publisher, subscribe: Subscribe) -> None:
    subscription = subscribe(A)
    count = 3 * module.MAX_FRAMES
    for number in range(count):
        publisher.send(A, [b"%d" % number])
    got: list[Message | Link] = []
    deadline = time.monotonic() + DEADLINE
    while len(messages(got)) < count:
        assert time.monotonic() < deadline
        got += subscription.receive(100)
        subscription.exact_topics = not subscription.exact_topics
    assert [message.frames for message in messages(got)] == [[b"%d" % number] for number in range(count)]


@both_modes
def test_a_restarted_publisher_is_a_disconnection_before_the_new_data(
    publisher: Publisher, subscribe: Subscribe, exact: bool
) -> None:
    subscription = subscribe(A, exact=exact)
    publisher.send(A, [b"before"])
    first = collect(subscription, until(1))
    assert first == [Link.CONNECTED, Message(A, [b"before"])]
    publisher.close()
    again = Publisher(publisher.port)

    def restart() -> None:
        again.wait_subscribed()
        again.send(A, [b"after"])

    thread = threading.Thread(target=restart)  # ZeroMQ subscribes anew only while somebody receives
    thread.start()
    try:
        got = collect(subscription, until(1))
    finally:
        thread.join()
        again.close()
    assert [item for item in got if item is not Link.RETRIED] == [
        Link.DISCONNECTED,
        Link.CONNECTED,
        Message(A, [b"after"]),
    ]


def test_nobody_listening_is_told_apart_from_silence(subscribe: Subscribe) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # bound but not listening: connections are refused
        subscription = subscribe(A, port=taken.getsockname()[1], wait=False)
        started = time.monotonic()
        assert not subscription.wait_connected(0.3)
        assert 0.25 < time.monotonic() - started < 3
        assert Link.RETRIED in subscription.receive(0)
        assert not subscription.connected


def test_a_port_that_accepts_but_is_no_publisher_does_not_count_as_connected(subscribe: Subscribe) -> None:
    with socket.create_server((HOST, 0)) as mute:
        subscription = subscribe(A, port=mute.getsockname()[1], wait=False)
        assert not subscription.wait_connected(0.3)


def test_a_peer_that_broke_the_protocol_is_dialled_again(
    subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libzmq gives up for ever on such a peer, for example a proxy that answered while the server restarted."""
    monkeypatch.setattr(module, "REDIAL_LOST", 0.05)
    dialled: list[float] = []
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(DEADLINE)

        def serve() -> None:
            for _ in range(3):
                peer, _ = server.accept()
                dialled.append(time.monotonic())
                peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00BOGUS" + bytes(100))
                peers.append(peer)

        peers: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        subscription = subscribe(A, port=server.getsockname()[1], wait=False)
        collect(subscription, lambda _: len(dialled) == 3)
        thread.join()
        for peer in peers:
            peer.close()


def test_wait_connected_loses_nothing_that_came_with_the_connection(
    publisher: Publisher, subscribe: Subscribe
) -> None:
    subscription = subscribe(A)
    publisher.send(A, [b"1"])
    assert subscription.wait_connected(0)
    assert collect(subscription, until(1)) == [Link.CONNECTED, Message(A, [b"1"])]


def test_connecting_never_misses_the_handshake(publisher: Publisher) -> None:
    """The official client attaches its watch after connecting and hangs in some of its constructors."""
    for _ in range(30):
        subscription = Subscription(HOST, publisher.port, [A])
        assert subscription.wait_connected(DEADLINE)
        subscription.close()


def test_wake_ends_a_wait_from_another_thread(subscribe: Subscribe) -> None:
    subscription = subscribe(A)
    subscription.receive(0)
    waiting = threading.Event()

    def wake() -> None:
        waiting.wait(DEADLINE)
        subscription.wake()

    waker = threading.Thread(target=wake)
    waker.start()
    started = time.monotonic()
    waiting.set()
    while subscription.receive(60_000):
        pass
    assert time.monotonic() - started < 5
    waker.join()


def test_wake_before_the_wait_is_not_lost_and_many_are_one(subscribe: Subscribe) -> None:
    subscription = subscribe(A)
    subscription.receive(0)
    for _ in range(100_000):  # more than fit: they must not block
        subscription.wake()
    started = time.monotonic()
    assert subscription.receive(60_000) == []
    assert time.monotonic() - started < 5


def test_wake_ends_wait_connected(subscribe: Subscribe) -> None:
    with socket.create_server((HOST, 0)) as mute:
        subscription = subscribe(A, port=mute.getsockname()[1], wait=False)
        subscription.wake()
        started = time.monotonic()
        assert not subscription.wait_connected(60)
        assert time.monotonic() - started < 5


def test_close_is_prompt_with_unread_data_and_may_be_repeated(
    publisher: Publisher, subscribe: Subscribe
) -> None:
    subscription = subscribe(A)
    for _ in range(20_000):
        publisher.send(A, [b"unread"])
    started = time.monotonic()
    subscription.close()
    subscription.close()
    subscription.wake()
    assert time.monotonic() - started < 3


def test_an_idle_receive_takes_its_time_and_returns_nothing(subscribe: Subscribe) -> None:
    subscription = subscribe(A)
    subscription.receive(0)
    started = time.monotonic()
    assert subscription.receive(60) == []
    assert 0.05 < time.monotonic() - started < 3


@pytest.mark.parametrize("topics", [(), ("",), (A, ""), "text"])
def test_topics_that_would_match_everything_are_refused(topics: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="topic ids"):
        Subscription(HOST, 9002, topics)


@pytest.mark.parametrize(("host", "port"), [("", 9002), (HOST, 0), (HOST, 65536), ("no host", 9002)])
def test_addresses_that_cannot_be_right_are_refused(host: str, port: int) -> None:
    with pytest.raises(ValueError, match="no address"):
        Subscription(host, port, [A])


# ---- topics_are_distinguishable

COUNT = TableType.parse(COUNT_SCHEMA)


def table_type(*avro: object) -> TableType:
    fields = [{"name": f"c{i}", "type": kind} for i, kind in enumerate(avro)]
    return TableType.parse(json.dumps({"type": "record", "name": "type_name", "fields": fields}))


def test_a_uuid_can_be_a_record_of_longs_and_doubles() -> None:
    # Four ASCII characters are four longs of a byte each; the other 32 are four doubles.
    assert not topics_are_distinguishable([A], [table_type(*["long"] * 4, *["double"] * 4)])
    assert topics_are_distinguishable([A], [table_type(*["long"] * 4, *["double"] * 4, "int"), COUNT])
    assert topics_are_distinguishable([A], [table_type(*["long"] * 3, *["double"] * 4), COUNT])


def test_a_string_that_is_no_utf8_still_counts_as_a_record() -> None:
    topic = "\x02é\x01"  # length 1 and half of the character; its other half goes on into the int
    assert not topics_are_distinguishable([topic], [table_type("string", "int")])


def test_a_topic_of_another_monitor_that_begins_with_ours_is_not_distinguishable() -> None:
    assert not topics_are_distinguishable(["abc"], [COUNT], others=["abcd"])
    assert topics_are_distinguishable(["abc"], [COUNT], others=["abc", "ab", "xabc"])


def test_a_count_equals_a_topic_of_one_character() -> None:
    assert not topics_are_distinguishable([A, "c"], [COUNT])


_columns = {
    "int": st.integers(0, 63),
    "long": st.integers(0, 63),
    "double": st.just(0.0),
    "float": st.just(0.0),
    "string": st.text(max_size=20),
    "bytes": st.text(max_size=20).map(str.encode),
}


@given(
    st.data(), st.lists(st.tuples(st.sampled_from(sorted(_columns)), st.booleans()), min_size=1, max_size=6)
)
def test_every_encoded_record_is_recognised_as_one(
    data: st.DataObject, kinds: list[tuple[str, bool]]
) -> None:
    table = TableType(tuple(Column(f"c{i}", base, nullable) for i, (base, nullable) in enumerate(kinds)))
    row = {
        column.name: data.draw(_columns[column.base] | (st.none() if column.nullable else st.nothing()))
        for column in table.columns
    }
    out = io.BytesIO()
    fastavro.schemaless_writer(out, table.avro, row)
    topic = out.getvalue().decode()  # small values, so that every record is text
    assert not topics_are_distinguishable([topic], [COUNT, table])
    # Avro is decoded without looking ahead, so what follows a record is left over.
    assert topics_are_distinguishable([topic + "~"], [table])
