"""Errors cross processes: each must come out of a pickle as it went in, however it was made."""

from __future__ import annotations

import pickle
from types import ModuleType

import pytest

import actors.errors
import cluster.errors
import protocols.kinetica.errors
import protocols.kronos.errors
from actors.monitor.transport import DecoderFailed


def errors_of(*modules: ModuleType) -> list[type[Exception]]:
    found = [value for module in modules for value in vars(module).values()]
    return [value for value in found if isinstance(value, type) and issubclass(value, Exception)]


PLAIN = errors_of(actors.errors, cluster.errors, protocols.kinetica.errors, protocols.kronos.errors)


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened; what to do")))
    assert type(error) is kind
    assert str(error) == "what happened; what to do"


def test_errors_keep_what_was_given_by_keyword() -> None:
    for kind in errors_of(protocols.kronos.errors):
        error = kind("busy", retry_after=2.5, status=503, reply={"errors": []})  # type: ignore[call-arg]
        copy = pickle.loads(pickle.dumps(error))
        assert vars(copy) == vars(error) == {"retry_after": 2.5, "status": 503, "reply": {"errors": []}}
    for kind in errors_of(protocols.kinetica.errors):
        copy = pickle.loads(pickle.dumps(kind(message="no\nanswer")))  # type: ignore[call-arg]
        assert str(copy) == "no answer"


def test_the_reports_of_a_transport_need_not_travel_but_may() -> None:
    error = DecoderFailed("died", blame=True)
    assert (str(error), error.blame) == ("died", True)
