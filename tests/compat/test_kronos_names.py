"""Every name, argument and default of PyKronos 0.6.2."""

from __future__ import annotations

import pytest

import tablecast
from tablecast import kronos
from tests.compat.names import REQUIRED, Name, check

_LOGGING = {
    "stream": REQUIRED,
    "properties": {},
    "log_function_stack_trace": False,
    "log_exception_stack_trace": False,
    "namespace": None,
}
_RANGE = {"stream": REQUIRED, "start_time": REQUIRED, "end_time": REQUIRED, "start_id": None}

NAMES = [
    Name(
        "KronosClient",
        {
            "http_url": REQUIRED,
            "blocking": True,
            "sleep_block": 0.1,
            "namespace": None,
            "chunk_size": 131072,
        },
    ),
    Name("KronosClient.index", {}),
    Name("KronosClient.put", {"event_dict": REQUIRED, "namespace": None}),
    Name(
        "KronosClient.get",
        {**_RANGE, "limit": None, "order": "ascending", "namespace": None, "timeout": None},
    ),
    Name("KronosClient.delete", {**_RANGE, "namespace": None}),
    Name("KronosClient.get_streams", {"namespace": None}),
    Name("KronosClient.infer_schema", {"stream": REQUIRED, "namespace": None}),
    Name("KronosClient.flush", {}),
    Name("KronosClient.log_function", _LOGGING),
    Name("KronosClient.log_scope", _LOGGING),
    Name("KronosClientError"),
    Name("ResultOrder.ASCENDING"),
    Name("ResultOrder.DESCENDING"),
    Name("ID_FIELD"),
    Name("TIMESTAMP_FIELD"),
    Name("LIBRARY_FIELD"),
    Name("SUCCESS_FIELD"),
    Name("datetime_to_epoch_time", {"dt": REQUIRED}),
    Name("datetime_to_kronos_time", {"dt": REQUIRED}),
    Name("timedelta_to_kronos_time", {"td": REQUIRED}),
    Name("epoch_time_to_kronos_time", {"time": REQUIRED}),
    Name("kronos_time_to_epoch_time", {"time": REQUIRED}),
    Name("kronos_time_to_datetime", {"time": REQUIRED}),
    Name("kronos_time_now", {}),
    Name("KRONOS_MIDDLEWARE"),
    Name("QueryCache"),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_names(name: Name) -> None:
    check(name, kronos, "Kronos")


def test_values() -> None:
    assert (kronos.ID_FIELD, kronos.TIMESTAMP_FIELD) == ("@id", "@time")
    assert (kronos.LIBRARY_FIELD, kronos.SUCCESS_FIELD) == ("@library", "@success")
    assert [str(order) for order in kronos.ResultOrder] == ["ascending", "descending"]
    assert tablecast.KronosClient is kronos.KronosClient


def test_all_is_sorted_and_there() -> None:
    for module in (tablecast, kronos):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
