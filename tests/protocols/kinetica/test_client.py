"""The control-plane client against real HTTP servers, healthy and faulty."""

from __future__ import annotations

import base64
import inspect
import logging
import pickle
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protocols.kinetica import errors, wire
from protocols.kinetica.client import KineticaClient, MonitorInfo, TableMonitor
from protocols.kinetica.errors import (
    AuthenticationFailed,
    CertificateRejected,
    KineticaError,
    MonitorsDisabled,
    RequestRefused,
    ServerUnavailable,
    TableNotFound,
    UnexpectedReply,
)
from protocols.kinetica.types import TableType
from tests.certificates import self_signed

from .scripted import RUNNING, Server

TYPE = TableType.parse(
    '{"type":"record","name":"type_name","fields":[{"name":"id","type":"int"},{"name":"d","type":["string","null"]}]}',
    {"id": ["primary_key"], "d": ["date", "nullable"]},
)
SECRET = "s3cr3t/p@ss"


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    """Leaves the log on, which the directory's fixture of this name turns off: these tests read it."""


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    return make_server()


@pytest.fixture
def client(server: Server) -> Iterator[KineticaClient]:
    with KineticaClient(server.url, timeout=5) as made:
        yield made


# ---- calls


def test_generic_call_fills_in_what_is_not_given(server: Server, client: KineticaClient) -> None:
    assert client.call("/has/table", table_name="t")["table_exists"] is True
    assert server.requests == [("/has/table", {"table_name": "t", "options": {}})]
    headers = server.headers[0]
    assert headers["Accept"] == headers["Content-type"] == wire.BINARY
    assert "Authorization" not in headers


def test_wrong_calls_are_refused_before_anything_is_sent(server: Server, client: KineticaClient) -> None:
    with pytest.raises(ValueError, match="unknown endpoint '/nope'"):
        client.call("/nope")
    with pytest.raises(ValueError, match="/has/table has no field tabel_name; it has table_name, options"):
        client.call("/has/table", tabel_name="t")
    with pytest.raises(ValueError, match="/has/table: a field does not fit"):
        client.call("/has/table", table_name=5)
    with pytest.raises(ValueError, match="mean all tables"):
        client.clear_table("")
    assert server.requests == []


def test_one_connection_is_kept_and_threads_share_the_client(server: Server, client: KineticaClient) -> None:
    for _ in range(10):
        assert client.has_table("t")
    assert server.connections == 1
    with ThreadPoolExecutor(8) as pool:
        names = ["t", "u"] * 100
        assert list(pool.map(client.has_table, names)) == [name == "t" for name in names]
    assert server.connections <= 9


def test_show_table(server: Server, client: KineticaClient) -> None:
    server.answers["/show/table"] = lambda request: {
        "table_names": ["t"],
        "type_ids": ["42"],
        "type_schemas": [TYPE.definition],
        "properties": [TYPE.properties],
        "additional_info": [{"schema_name": "s"}],
        "total_full_size": 7 if request["options"].get("get_sizes") == "true" else -1,
    }
    info = client.show_table("t")
    assert (info.name, info.type_id, info.size, info.additional_info) == (
        "t",
        "42",
        None,
        {"schema_name": "s"},
    )
    assert info.type == TYPE
    assert client.show_table("t", sizes=True).size == 7


def test_a_table_description_without_columns_is_unexpected(server: Server, client: KineticaClient) -> None:
    server.answers["/show/table"] = lambda _: {}
    with pytest.raises(UnexpectedReply, match="describes no table t"):
        client.show_table("t")


def test_types_and_tables(server: Server, client: KineticaClient) -> None:
    server.answers["/create/type"] = lambda _: {"type_id": "42"}
    server.answers["/create/table"] = lambda _: {}
    server.answers["/alter/table"] = lambda _: {"type_id": "43"}
    server.answers["/clear/table"] = lambda _: {}
    assert client.create_type(TYPE) == "42"
    client.create_table("t", "42", options={"no_error_if_exists": "true"})
    assert client.alter_table("t", "add_column", "x", options={"column_type": "int"}) == "43"
    client.clear_table("t", missing_ok=True)
    sent = dict(server.requests)
    assert sent["/create/type"] == {
        "type_definition": TYPE.definition,
        "label": "",
        "properties": {"id": ["primary_key"], "d": ["date", "nullable"]},
        "options": {},
    }
    assert sent["/create/table"]["options"] == {"no_error_if_exists": "true"}
    assert sent["/alter/table"]["options"] == {"column_type": "int"}
    assert sent["/clear/table"]["options"] == {"no_error_if_not_exists": "true"}


def test_records(server: Server, client: KineticaClient) -> None:
    server.answers["/insert/records"] = lambda request: {
        "count_inserted": len(request["list"]),
        "count_updated": 1,
    }
    server.answers["/get/records"] = lambda _: {
        "type_name": "42",
        "type_schema": TYPE.definition,
        "records_binary": [b"\x02\x02", b"\x04\x02"],
        "total_number_of_records": 9,
        "has_more_records": True,
    }
    server.answers["/delete/records"] = lambda _: {"count_deleted": 3}
    server.answers["/update/records"] = lambda _: {"count_updated": 2}
    assert client.insert_records("t", [b"\x02\x02", b"\x04\x02"]) == (2, 1)
    page = client.get_records("t", expression="id > 1", sort_by="id", offset=4, limit=2)
    assert page == ([b"\x02\x02", b"\x04\x02"], "42", TYPE.definition, 9, True)
    client.get_records("t")
    assert client.delete_records("t", ["id = 1"]) == 3
    assert client.delete_records("t", delete_all=True) == 3
    assert client.update_records("t", ["id = 1"], [{"d": None}]) == 2
    sent = [request for _, request in server.requests]
    assert sent[0]["list"] == [b"\x02\x02", b"\x04\x02"]
    assert sent[0]["list_encoding"] == "binary"
    assert (sent[1]["offset"], sent[1]["limit"]) == (4, 2)
    assert sent[1]["options"] == {"expression": "id > 1", "sort_by": "id"}
    assert (sent[2]["limit"], sent[2]["options"]) == (wire.END_OF_SET, {})
    assert (sent[3]["expressions"], sent[3]["options"]) == (["id = 1"], {})
    assert (sent[4]["expressions"], sent[4]["options"]) == ([], {"delete_all_records": "true"})
    assert sent[5]["new_values_maps"] == [{"d": None}]


@pytest.mark.parametrize("arguments", [{}, {"expressions": ["id = 1"], "delete_all": True}])
def test_deleting_needs_one_way_to_say_what(client: KineticaClient, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either expressions or delete_all"):
        client.delete_records("t", **arguments)


def test_monitors(server: Server, client: KineticaClient) -> None:
    server.answers["/create/tablemonitor"] = lambda request: {
        "topic_id": "T-" + request["options"]["event"],
        "type_schema": wire.COUNT_SCHEMA,
    }
    server.answers["/clear/tablemonitor"] = lambda _: {}
    server.answers["/show/tablemonitors"] = lambda _: {
        "monitor_ids": ["T-insert", "T-delete"],
        "table_names": ["t", "u"],
        "events": ["insert", "delete"],
    }
    assert client.create_table_monitor("t", "delete") == MonitorInfo("T-delete", wire.COUNT_SCHEMA)
    client.clear_table_monitor("T-delete")
    assert server.requests[-1] == ("/clear/tablemonitor", {"topic_id": "T-delete", "options": {}})
    monitors = client.show_table_monitors()
    assert monitors == [TableMonitor("T-insert", "t", "insert"), TableMonitor("T-delete", "u", "delete")]


def test_a_refusal_carries_the_servers_text_in_one_line(server: Server, client: KineticaClient) -> None:
    server.faults["/create/table"] = "Type 7\n  is unknown"
    with pytest.raises(RequestRefused, match=r"^/create/table on http://.*: Type 7 is unknown$") as caught:
        client.create_table("t", "7")
    assert type(caught.value) is RequestRefused


def test_a_missing_table_is_told_by_asking_not_by_the_text(server: Server, client: KineticaClient) -> None:
    server.faults["/show/table"] = "computer says no"
    with pytest.raises(TableNotFound, match="there is no table gone"):
        client.show_table("gone")
    with pytest.raises(RequestRefused) as caught:
        client.show_table("t")
    assert not isinstance(caught.value, TableNotFound)
    server.faults["/has/table"] = "computer says no"
    with pytest.raises(RequestRefused) as caught:
        client.show_table("gone")
    assert not isinstance(caught.value, TableNotFound)


# ---- the server's own account


def properties(server: Server, **values: str) -> None:
    server.answers["/show/system/properties"] = lambda _: {
        "property_map": {key.replace("__", "."): value for key, value in values.items()}
    }


@pytest.mark.parametrize(("value", "port"), [("9017", 9017), (" 9017 ", 9017), ("", 9002), (None, 9002)])
def test_monitor_port(server: Server, client: KineticaClient, value: str | None, port: int) -> None:
    properties(server, **({} if value is None else {"conf__set_monitor_port": value}))
    assert client.monitor_port() == port
    assert client.monitor_host() == "127.0.0.1"


@pytest.mark.parametrize(
    ("value", "error"),
    [("-1", MonitorsDisabled), ("0", UnexpectedReply), ("x", UnexpectedReply), ("²", UnexpectedReply)],
)
def test_no_monitor_port(
    server: Server, client: KineticaClient, value: str, error: type[KineticaError]
) -> None:
    properties(server, conf__set_monitor_port=value)
    with pytest.raises(error, match="set_monitor_port"):
        client.monitor_port()


def test_an_unknown_version_is_logged_once(
    server: Server, client: KineticaClient, caplog: pytest.LogCaptureFixture
) -> None:
    properties(server, version__gpudb_core_version="8.0.0.1.20300101")
    assert client.version == client.version == "8.0.0.1.20300101"
    client.properties()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "8.0.0.1" in caplog.text
    assert server.asked("/show/system/properties") == 2


def test_a_known_version_is_not_logged(
    server: Server, client: KineticaClient, caplog: pytest.LogCaptureFixture
) -> None:
    properties(server, version__gpudb_core_version="7.2.3.18.20260101")
    assert client.version == "7.2.3.18.20260101"
    assert caplog.records == []


def test_status(server: Server, client: KineticaClient) -> None:
    assert client.status().usable
    server.answers["/show/system/status"] = lambda _: {
        "status_map": {"system": RUNNING, "ha_status": '{"drained":"draining"}'}
    }
    assert client.status() == ("running", "draining")
    assert not client.status().usable
    server.answers["/show/system/status"] = lambda _: {"status_map": {"system": "[]"}}
    with pytest.raises(UnexpectedReply, match="no system status"):
        client.status()


# ---- credentials and TLS


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("userinfo", "arguments", "expected"),
    [
        ("", {"username": "ann", "password": SECRET}, basic(f"ann:{SECRET}")),
        ("", {"username": "ann"}, basic("ann:")),
        ("an%40n:s3cr3t%2Fp%40ss@", {}, basic(f"an@n:{SECRET}")),
        ("bob:other@", {"username": "ann", "password": SECRET}, basic(f"ann:{SECRET}")),
        ("bob:other@", {"username": "ann", "password": "x", "token": SECRET + "\n"}, f"Bearer {SECRET}"),
    ],
)
def test_credentials_are_sent_and_shown_nowhere(
    server: Server, userinfo: str, arguments: dict[str, str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("//", f"//{userinfo}")
    with KineticaClient(url, **arguments) as client:
        assert client.has_table("t")
        assert server.headers[0]["Authorization"] == expected
        assert client.url == server.url
        server.faults["/has/table"] = "401"
        with pytest.raises(AuthenticationFailed, match="refused the credentials") as caught:
            client.has_table("t")
        server.faults["/has/table"] = "502"
        with pytest.raises(ServerUnavailable) as caught2:
            client.has_table("t")
    shown = f"{client!r} {client} {caught.value!r} {caught2.value!r} {caplog.text}"
    for secret in (SECRET, "other", "s3cr3t", expected.split()[1]):
        assert secret not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"urls": "localhost:9191"}, "malformed URL"),
        ({"urls": "ftp://host"}, "malformed URL"),
        ({"urls": "http://"}, "malformed URL"),
        ({"urls": f"http://ann:{SECRET}@host:9191"}, "percent-encoded"),  # the slash ends the host part
        ({"urls": "http://host:port"}, "malformed URL"),
        ({"urls": []}, "at least one URL"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"verify": "/no/such/file"}, "verify"),
        ({"password": SECRET}, "needs a username"),
        ({"token": f"{SECRET}\r\nX-Evil: 1"}, "the token"),
        ({"token": ""}, "the token"),
    ],
)
def test_wrong_arguments_are_named_without_secrets(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        KineticaClient(**{"urls": "http://host", **arguments})
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "arguments",
    [{"username": 5}, {"username": "u", "password": 5}, {"token": 5}, {"verify": False}, {"urls": [5]}],
)
def test_arguments_of_a_wrong_type_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{list(arguments)[-1].rstrip('s')} must be"):
        KineticaClient(**{"urls": "http://host", **arguments})


def test_urls_are_completed() -> None:
    urls = ["http://host", "http://host:80/", "https://host/gpudb-0/", "http://[::1]", "http://host/gpudb-0"]
    assert repr(KineticaClient(urls)) == (
        "KineticaClient(['http://host:9191', 'http://host:80', 'https://host/gpudb-0', 'http://[::1]:9191',"
        " 'http://host/gpudb-0'])"
    )
    assert KineticaClient("http://[::1]").monitor_host() == "::1"


def test_tls_is_verified(make_server: Callable[[], Server], tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = make_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with (
        KineticaClient([url, url], timeout=5) as client,
        pytest.raises(CertificateRejected, match="not trusted"),
    ):
        client.insert_records("t", [b"x"])
    with KineticaClient(url, timeout=5, verify=certificate) as client:
        assert client.has_table("t")
    assert server.asked("/insert/records") == 0


def test_the_environment_brings_no_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch, dead_url: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead_url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with KineticaClient(server.url, timeout=5) as client:
        assert client.has_table("t")


# ---- errors

TREE = [
    value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, KineticaError)
]


@pytest.mark.parametrize("error", TREE)
@pytest.mark.parametrize("keyword", [False, True])
def test_errors_survive_pickling(error: type[KineticaError], keyword: bool) -> None:
    made = error(message="what\n happened") if keyword else error("what\n happened")
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is error
    assert str(copy) == str(made) == "what happened"
    assert copy.retryable is made.retryable


def test_the_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    for error in TREE:
        drawn = [line for line in errors.__doc__.splitlines() if error.__name__ in line.split()]
        assert len(drawn) == 1, error
        assert ("retryable" in drawn[0]) is error.retryable
