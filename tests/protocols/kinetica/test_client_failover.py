"""The control-plane client on clusters that fail: what is asked elsewhere, and what is never sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    KineticaError,
    OutcomeUnknown,
    ServerUnavailable,
)

from .scripted import RUNNING, Server


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    return make_server()


#: A fault, and what the error says of it.
FAULTS = {
    "hang": "no answer within 1.5 s",
    "reset": "connection lost",
    "502": "HTTP 502",
    "500": "HTTP 500",
    "404": "HTTP 404",
    "garbage": "not Kinetica's",
    "Kinetica is exiting": "Kinetica is exiting",
    "Unavailable: Draining HA queue": "Draining HA queue",
}
#: Seconds: what is waited for to the end is short, yet long enough for a healthy server on a busy machine.
HANG_TIMEOUT, TIMEOUT = 1.5, 30.0
UNREACHABLE = ("hang", "reset")
PHRASES = tuple(FAULTS)[-2:]


def timeout_for(fault: str) -> float:
    return HANG_TIMEOUT if fault == "hang" else TIMEOUT


@pytest.mark.parametrize("fault", FAULTS)
def test_a_single_cluster_that_fails(server: Server, fault: str) -> None:
    server.faults["/has/table"] = fault
    server.answers["/insert/records"] = lambda _: {}
    server.faults["/insert/records"] = fault
    expected = ConnectionFailed if fault in UNREACHABLE else ServerUnavailable
    with KineticaClient(server.url, timeout=timeout_for(fault)) as client:
        with pytest.raises(KineticaError, match=FAULTS[fault]) as caught:
            client.has_table("t")
        assert type(caught.value) is expected
        assert caught.value.retryable
        assert f"{server.url}: " in str(caught.value)
        with pytest.raises(OutcomeUnknown, match=f"may have been applied.*{FAULTS[fault]}") as unknown:
            client.insert_records("t", [b"x"])
        assert not unknown.value.retryable
        server.faults.clear()
        assert client.has_table("t")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_goes_to_the_next_cluster_and_stays_there(
    make_server: Callable[[], Server], fault: str
) -> None:
    first, second = make_server(), make_server()
    first.faults["/has/table"] = fault
    with KineticaClient([first.url, second.url], timeout=timeout_for(fault)) as client:
        assert client.has_table("t")
        assert client.url == second.url
        assert client.has_table("t")
    assert first.asked("/has/table") == 1
    assert [path for path, _ in second.requests] == ["/show/system/status", "/has/table", "/has/table"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_change_is_never_sent_twice(make_server: Callable[[], Server], fault: str) -> None:
    first, second = make_server(), make_server()
    for server in (first, second):
        server.answers["/insert/records"] = lambda _: {"count_inserted": 1}
    first.faults["/insert/records"] = fault
    with KineticaClient([first.url, second.url], timeout=timeout_for(fault)) as client:
        with pytest.raises(OutcomeUnknown):
            client.insert_records("t", [b"x"])
        assert (first.asked("/insert/records"), second.asked("/insert/records")) == (1, 0)
        # The caller, who has looked, is not sent to the faulty one again.
        assert client.insert_records("t", [b"x"]) == (1, 0)
    assert (first.asked("/insert/records"), second.asked("/insert/records")) == (1, 1)


def test_a_change_that_never_left_is_sent_to_the_next_cluster(server: Server, dead_url: str) -> None:
    server.answers["/insert/records"] = lambda _: {"count_inserted": 1}
    with KineticaClient([dead_url, server.url], timeout=TIMEOUT) as client:
        assert client.insert_records("t", [b"x"]) == (1, 0)
        assert client.url == server.url
        assert client.insert_records("t", [b"x"]) == (1, 0)
    assert server.asked("/show/system/status") == 1
    assert server.asked("/insert/records") == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"system": '{"status":"stopped"}'}, "system stopped"),
        ({"system": RUNNING, "ha_status": '{"drained":"draining"}'}, "drain draining"),
        ({}, "no system status"),
    ],
)
def test_a_cluster_that_is_not_usable_is_passed_over(
    make_server: Callable[[], Server], dead_url: str, status: dict[str, str], reason: str
) -> None:
    unusable, good = make_server(), make_server()
    unusable.answers["/show/system/status"] = lambda _: {"status_map": status}
    with KineticaClient([dead_url, unusable.url, good.url], timeout=TIMEOUT) as client:
        assert client.has_table("t")
        assert client.url == good.url
    with (
        KineticaClient([dead_url, unusable.url], timeout=TIMEOUT) as client,
        pytest.raises(ServerUnavailable, match=reason),
    ):
        client.insert_records("t", [b"x"])  # not OutcomeUnknown: it was sent to nobody
    assert unusable.asked("/has/table") == unusable.asked("/insert/records") == 0


def test_the_ring_goes_round(make_server: Callable[[], Server]) -> None:
    first, second = make_server(), make_server()
    with KineticaClient([first.url, second.url], timeout=TIMEOUT) as client:
        for failing, working in ((first, second), (second, first)):
            failing.faults["/has/table"] = "503"
            working.faults.clear()
            assert client.has_table("t")
            assert client.url == working.url


def test_when_all_fail_the_error_names_each_and_why(server: Server, dead_url: str) -> None:
    server.faults["/has/table"] = "503"
    secretive = dead_url.replace("//", "//ann:s3cr3t@")
    with KineticaClient([secretive, server.url], timeout=TIMEOUT) as client:
        with pytest.raises(ServerUnavailable, match="every cluster") as caught:
            client.has_table("t")
        text = str(caught.value)
        assert f"{dead_url}: Connection refused" in text
        assert f"{server.url}: HTTP 503" in text
        assert "s3cr3t" not in text
        assert "\n" not in text
    with (
        KineticaClient(dead_url, timeout=TIMEOUT) as client,
        pytest.raises(ConnectionFailed, match="the only cluster"),
    ):
        client.clear_table("t")  # provably not applied, so not OutcomeUnknown


def test_wrong_credentials_are_not_tried_elsewhere(make_server: Callable[[], Server]) -> None:
    first, second = make_server(), make_server()
    first.faults["/has/table"] = "401"
    with (
        KineticaClient([first.url, second.url], timeout=TIMEOUT) as client,
        pytest.raises(AuthenticationFailed),
    ):
        client.has_table("t")
    assert second.requests == []


def test_a_hung_cluster_costs_no_more_than_the_timeout(server: Server) -> None:
    server.faults["/has/table"] = "hang"
    started = time.monotonic()
    with KineticaClient(server.url, timeout=HANG_TIMEOUT) as client, pytest.raises(ConnectionFailed):
        client.has_table("t")
    assert HANG_TIMEOUT - 0.05 < time.monotonic() - started < 15  # the server would hang for 20
