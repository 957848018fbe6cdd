"""Every name, argument and default of what Panoply's SDK 3.2.0 has for data sources."""

from __future__ import annotations

import typing

import pytest

from tablecast import panoply
from tests.compat.names import REQUIRED, Name, check, check_modules

NAMES = [
    Name("DataSource", {"source": REQUIRED, "options": {}}),
    Name("DataSource.read", {"batch_size": None}),
    Name("DataSource.log"),
    Name("DataSource.progress", {"loaded": REQUIRED, "total": REQUIRED, "msg": ""}),
    Name("DataSource.state", {"state_id": REQUIRED, "state": REQUIRED}),
    Name("DataSource.raw", {"tag": REQUIRED, "raw": REQUIRED, "metadata": REQUIRED}),
    Name("DataSource.on", {"name": REQUIRED, "fn": REQUIRED}),
    Name("DataSource.fire", {"type": REQUIRED, "data": REQUIRED}),
    Name("DataSource.get_resource", {"resource_id": REQUIRED, "source": REQUIRED, "options": {}}),
    Name("DataSource.list_resources", {"source": REQUIRED, "options": {}}),
    Name(
        "validate_token",
        {
            "refresh_url": REQUIRED,
            "exceptions": (),
            "callback": None,
            "access_key": "access_token",
            "refresh_key": "refresh_token",
        },
    ),
    Name("background_progress", {"message": REQUIRED, "waiting_interval": 600, "timeout": 86400}),
    Name("SSHTunnel", {"host": REQUIRED, "port": REQUIRED, "ssh_tunnel": REQUIRED, "platform_ssh": True}),
    Name("SSHTunnel.server"),
    Name("to_record", {"resource": REQUIRED, "data": REQUIRED}),
    Name("validate_resource", {"resource": REQUIRED}),
    Name("normalize_data", {"data": REQUIRED}),
    Name("get_iso_string", {}),
    Name("convert_to_ui_format"),
    Name("errors.PanoplyException", {"args": None, "retryable": True}),
    Name("errors.TokenValidationException", {"original_error": REQUIRED, "args": None, "retryable": True}),
    Name("errors.IncorrectParamError", {"msg": "Incorrect input parametr"}),
    Name(
        "errors.DataSourceException",
        dict.fromkeys(
            ("message", "code", "exception_cls", "phase", "source_type", "source_id", "database_id"), REQUIRED
        ),
    ),
    Name("errors.Phase.COLLECT"),
    Name("errors.Phase.CONFIG"),
    Name("errors.set_internal_code", {"code": REQUIRED}),
    Name("errors.wrap_errors", {"phase": REQUIRED}),
]

MODULES = {
    "sdk": "SDK MAXSIZE FLUSH_TIMEOUT",
    "events": "Emitter",
    "datasource": "DataSource validate_token background_progress",
    "ssh": "SSHTunnel",
    "records": "Record RecordGroup Metadata to_record validate_resource normalize_data get_iso_string",
    "resources": "Resource Field",
    "errors": "PanoplyException DataSourceException IncorrectParamError Phase wrap_errors set_internal_code",
    "errors.exceptions": "PanoplyException TokenValidationException DataSourceException IncorrectParamError",
    "errors.error_normalization": "Phase wrap_errors set_internal_code",
}

KEYS = {
    "Record": {"data", "metadata"},
    "RecordGroup": {"data", "metadata"},
    "Metadata": {"resource_id", "timestamp"},
    "Resource": {"id", "title", "fields", "available", "required", "requires"},
    "Field": {"name", "type", "is_mandatory", "is_available"},
}


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_names(name: Name) -> None:
    check(name, panoply, "Panoply data sources")


def test_modules() -> None:
    check_modules(MODULES, "tablecast.panoply")


@pytest.mark.parametrize("name", KEYS)
def test_keys(name: str) -> None:
    assert set(typing.get_type_hints(getattr(panoply, name))) == KEYS[name]


def test_values() -> None:
    assert [(phase.name, phase.value) for phase in panoply.Phase] == [
        ("COLLECT", "collect"),
        ("CONFIG", "config"),
    ]
    assert sorted(panoply.errors.CODES) == [400, 401, 403, 404, 408, 422, 429, 500, 501, 506]
    assert panoply.convert_to_ui_format(
        items=[1],
        create_name=str,
        create_value=str,
        is_disabled=lambda item: True,
        requires=lambda item: ["x"],
    ) == [{"name": "1", "value": "1", "disabled": True, "requires": ["x"]}]


def test_tunnels() -> None:
    good = {"active": True, "host": "bastion", "username": "u", "privateKey": "secret-key"}
    tunnel = panoply.SSHTunnel("db", 5432, dict(good))
    with tunnel as server:
        assert server is None
    assert str(tunnel) == "SSH tunnel to bastion, for user u"
    assert tunnel.tunnel["port"] == 22
    assert "secret-key" not in repr(tunnel)
    for port, given, text in (
        ("1", good, "Port should be instance of `int`"),
        (65536, good, "Port should be in range"),
        (1, None, "SSH tunnel should be `dict` object"),
        (1, {**good, "active": False}, "SSH tunnel object should contain `active` property"),
        (1, {**good, "privateKey": ""}, "SSH tunnel object should contain `privateKey` property"),
    ):
        with pytest.raises(panoply.IncorrectParamError, match=text):
            panoply.SSHTunnel("db", port, given)  # type: ignore[arg-type]
    with pytest.raises(panoply.IncorrectParamError, match="ssh -N -L"):
        panoply.SSHTunnel("db", 1, good, platform_ssh=False)
