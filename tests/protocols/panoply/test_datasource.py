"""The building blocks of data sources: the class, its events and decorators, records, errors."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from protocols.panoply import datasource, records, source_errors
from protocols.panoply.datasource import DataSource, background_progress, validate_token
from protocols.panoply.source_errors import (
    DataSourceException,
    IncorrectParamError,
    PanoplyException,
    Phase,
    TokenValidationException,
    set_internal_code,
    wrap_errors,
)


class Source(DataSource):
    def read(self, batch_size: int | None = None) -> Any:
        return None


def test_a_source_needs_read_and_keeps_what_it_is_given() -> None:
    with pytest.raises(TypeError, match="abstract"):
        DataSource({})  # type: ignore[abstract]
    given = {"type": "x"}
    one, other = Source(given), Source({})
    assert one.source is given
    assert one.options == {}
    assert one.options is not other.options
    assert not hasattr(one, "close")
    for method in (Source.get_resource, Source.list_resources):
        with pytest.raises(NotImplementedError, match=r"`\w+_resources?` method is not supported\."):
            method("r", {}) if method == Source.get_resource else method({})


def test_events_and_logs() -> None:
    told: list[Any] = []
    source = Source({}, {"logger": told.append})
    source.on("*", lambda name, data: told.append((name, data)))
    source.log("a", 1)
    source.progress(1, 2)
    source.state("id", {"a": 1})
    assert source.fire("source-change", {"token": "t"}) is source
    assert told == [
        ("a", 1),
        ("progress", {"loaded": 1, "total": 2, "msg": ""}),
        ("source-state", {"stateId": "id", "state": {"a": 1}}),
        ("source-change", {"token": "t"}),
    ]
    assert source.raw("tag", b"\x00\xffabc", {"m": 1}) == {
        **{"type": "raw", "tag": "tag", "raw": b"AP9hYmM=", "metadata": {"m": 1}}
    }


@pytest.mark.parametrize("wrong", [None, "text", {"a": {1}}, [1]])
def test_wrong_states_and_changes_are_refused_at_the_call(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a state is a dict"):
        Source({}).state("id", wrong)
    with pytest.raises(TypeError, match="a source-change is a dict"):
        Source({}).fire("source-change", wrong)


class _Tokens(BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]] = []
    asked: list[dict[str, list[str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(parse_qs(body))
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A server of tokens that gives these answers, the last for ever; its URL."""
    monkeypatch.setattr(datasource, "TOKEN_PAUSE", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(*answers: tuple[int, bytes]) -> str:
        _Tokens.answers, _Tokens.asked = list(answers), []
        return f"http://127.0.0.1:{server.server_port}/token"

    yield answer
    server.shutdown()
    server.server_close()


def _with_token(url: str, **options: Any) -> DataSource:
    class Expiring(Source):
        @validate_token(url, (PermissionError,), **options)
        def read(self, batch_size: int | None = None) -> Any:
            """Read."""
            if self.source["access_token"] != "new":
                raise PermissionError("expired")
            return [{"n": batch_size}]

        def took(self, token: str) -> None:
            self.source["took"] = token

    refresh = {"client_id": "c", "grant_type": "refresh_token"}
    return Expiring({"access_token": "old", "refresh_token": "R"}, {"refresh": refresh, "logger": print})


def test_a_token_is_refreshed_and_told(tokens: Callable[..., str]) -> None:
    url = tokens((503, b"busy"), (200, b'{"access_token": "new", "refresh_token": "R2"}'))
    source = _with_token(url, callback="took")
    changed: list[Any] = []
    source.on("source-change", changed.append)
    assert source.read(5) == [{"n": 5}]
    assert source.read.__doc__ == "Read."
    assert _Tokens.asked[0] == {"client_id": ["c"], "grant_type": ["refresh_token"], "refresh_token": ["R"]}
    assert len(_Tokens.asked) == 2
    assert source.source == {"access_token": "new", "refresh_token": "R2", "took": "new"}
    assert changed == [{"access_token": "new", "refresh_token": "R2"}]


@pytest.mark.parametrize(("status", "answer"), [(401, b"secret-answer"), (200, b"{}"), (200, b"no json")])
def test_a_token_that_is_refused_is_final(
    tokens: Callable[..., str], capsys: pytest.CaptureFixture[str], status: int, answer: bytes
) -> None:
    source = _with_token(tokens((status, answer)))
    with pytest.raises(TokenValidationException, match="access token could not be refreshed") as caught:
        source.read()
    assert not caught.value.retryable
    assert source.source["access_token"] is None
    assert len(_Tokens.asked) == (3 if status == 401 else 1)
    assert "secret-answer" not in capsys.readouterr().out


def test_without_exceptions_nothing_is_caught(tokens: Callable[..., str]) -> None:
    class Plain(Source):
        @validate_token(tokens((200, b"{}")))
        def read(self, batch_size: int | None = None) -> Any:
            raise PermissionError("expired")

    with pytest.raises(PermissionError):
        Plain({}).read()
    assert _Tokens.asked == []


@pytest.mark.parametrize(
    "decorate",
    [
        lambda: validate_token(5),  # type: ignore[arg-type]
        lambda: validate_token("http://x", [ValueError]),  # type: ignore[arg-type]
        lambda: validate_token("http://x", (ValueError, "KeyError")),  # type: ignore[arg-type]
        lambda: validate_token("http://x", callback=5),  # type: ignore[arg-type]
        lambda: background_progress(5),  # type: ignore[arg-type]
        lambda: background_progress("m", "x"),  # type: ignore[arg-type]
        lambda: background_progress("m", 5, None),  # type: ignore[arg-type]
    ],
)
def test_decorators_check_their_arguments(decorate: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="must be"):
        decorate()


def test_background_progress() -> None:
    done = threading.Event()
    told: list[Any] = []

    class Slow(Source):
        @background_progress("still at it", waiting_interval=0.01)
        def read(self, batch_size: int | None = None) -> Any:
            done.wait(10)
            return [batch_size]

        @background_progress("for ever", waiting_interval=0.01, timeout=0.03)
        def hang(self) -> None:
            done.wait(10)

        @background_progress("failing")
        def fail(self) -> None:
            raise KeyError("x")

    source = Slow({}, {"logger": lambda messages: None})
    source.on("progress", lambda data: (told.append(data), done.set() if len(told) == 3 else None))
    assert source.read(7) == [7]
    assert told[0] == {"loaded": None, "total": None, "msg": "still at it"}
    done.clear()
    with pytest.raises(PanoplyException, match="Max waiting time exceeded"):
        source.hang()
    done.set()
    with pytest.raises(KeyError):
        source.fail()


def test_records() -> None:
    record = records.to_record("r", {"a": 1})
    assert record["data"] == [{"a": 1}]
    assert record["metadata"]["resource_id"] == "r"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["metadata"]["timestamp"])
    assert records.to_record("r", [])["data"] == []
    for resource, data, error, text in (
        (5, {}, TypeError, "`resource` must be of a type string"),
        (" ", {}, ValueError, "`resource` must be a non empty string"),
        ("r", [5], TypeError, "Objects inside returned list should be of type dict."),
        ("r", [{}, 5], TypeError, "Objects inside returned list should be of type dict."),
        ("r", 5, TypeError, "The data returned should be of the type list or dict."),
    ):
        with pytest.raises(error, match=re.escape(text)):
            records.to_record(resource, data)  # type: ignore[arg-type]


def test_entries_to_choose_from() -> None:
    assert records.convert_to_ui_format(None, str, str) is None
    assert records.convert_to_ui_format([], str, str) is None
    assert records.convert_to_ui_format(["a"], str.upper, str, lambda item: True) == [
        {"name": "A", "value": "a", "disabled": True, "requires": []}
    ]


def test_errors() -> None:
    assert PanoplyException().args == (None,)
    assert PanoplyException("x").retryable
    assert str(IncorrectParamError()) == "Incorrect input parametr"
    for error in (
        PanoplyException("x", retryable=False),
        TokenValidationException(KeyError("k"), "y", retryable=False),
        IncorrectParamError("z"),
        DataSourceException("m", 404, "a.B", Phase.COLLECT, "t", 1, 2),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert getattr(again, "retryable", None) == getattr(error, "retryable", None)
    with pytest.raises(RuntimeError, match="Unable to set error code for non-Exception class"):
        set_internal_code(404)(int)


def test_errors_are_told_in_one_form() -> None:
    @set_internal_code(404)
    class Gone(Exception):
        pass

    class Derived(Gone):
        pass

    @set_internal_code(999)
    class Odd(Exception):
        pass

    class Failing(Source):
        @wrap_errors(Phase.CONFIG)
        def fail(self, error: Exception) -> None:
            raise error

    source = Failing({"type": "t", "id": 1, "database": 2})
    for error, code in ((Gone("x"), 404), (Derived("x"), 501), (Odd("x"), 506), (KeyError("x"), 501)):
        with pytest.raises(DataSourceException) as caught:
            source.fail(error)
        told = caught.value
        assert (told.code, told.message, told.phase) == (code, str(error), Phase.CONFIG)
        assert (told.source_type, told.source_id, told.database_id) == ("t", 1, 2)
        assert told.exception_cls.endswith(type(error).__qualname__)
        assert told.created_at.tzinfo is None

    @wrap_errors(Phase.COLLECT)
    def outer(given: dict[str, Any]) -> None:
        Failing(given).fail(KeyError("k"))

    with pytest.raises(DataSourceException) as caught:
        outer({})  # a source that says nothing of itself hides nothing
    assert (caught.value.phase, caught.value.source_type) == (Phase.COLLECT, None)
    assert source_errors.CODES[caught.value.code] == "Unclassified error"
