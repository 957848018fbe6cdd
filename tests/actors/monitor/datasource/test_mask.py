"""Parameters stay out of texts; data sources are found, and what is wrong with them is told."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import orjson
import pytest

from actors.monitor.datasource.loading import NoSuchDataSource, load, missing_params
from actors.monitor.datasource.mask import Mask, secret_params
from protocols.panoply.datasource import DataSource


def test_parameters_are_masked_as_they_are_and_as_urls_have_them() -> None:
    mask = Mask()
    mask.add(
        {"token": "a+b/c d", "list": [{"deep": "hidden-text"}], "number": 123456, "short": "me", "on": True}
    )
    assert mask("?t=a%2Bb%2Fc%20d&t=a%2Bb%2Fc+d a+b/c d hidden-text 123456 me True") == (
        "?t=***&t=*** *** *** *** me True"
    )
    mask.add({"new": "hidden-text-that-is-longer"})
    assert mask("hidden-text-that-is-longer") == "***"
    assert mask.line(ValueError("a\n  hidden-text")) == "ValueError: a ***"
    assert mask.line(ValueError()) == "ValueError: no message"


@pytest.mark.parametrize("secret", ["line one\nline two", 'quo"ted', "back\\slash", "pässwörd", "tab\there"])
def test_parameters_are_masked_as_python_and_json_have_them(secret: str) -> None:
    mask = Mask()
    mask.add({"secret": secret})
    for text in (repr(secret), json.dumps(secret), orjson.dumps(secret).decode()):
        assert mask(text)[1:-1] == "***"
    assert mask.line(KeyError(secret)) == "KeyError: '***'"


def test_what_a_config_calls_no_secret_is_shown() -> None:
    config = {"params": [{"name": "url", "secret": False}, {"name": "token"}]}
    assert secret_params({"url": "x", "token": "y", "more": "z"}, config) == {"token": "y", "more": "z"}
    assert secret_params({"url": "x"}, {"params": {}}) == {"url": "x"}


def test_missing_parameters() -> None:
    config = {
        "params": [
            {"name": "user", "title": "User name", "placeholder": "me"},
            {"name": "token", "help": "from the settings"},
            {"name": "plain"},
            {"name": "optional", "required": False},
        ]
    }
    assert missing_params(config, {}) == ["user (User name; me)", "token (from the settings)", "plain"]
    assert missing_params(config, {"user": "", "token": None, "plain": 1}) == []
    assert missing_params({}, {}) == missing_params({"params": {}}, {}) == []
    for wrong in ({"params": "x"}, {"params": ["x"]}, {"params": [{"title": "x"}]}):
        with pytest.raises(NoSuchDataSource, match="params"):
            missing_params(wrong, {})


class Good(DataSource):
    def read(self, batch_size: int | None = None) -> Any:
        return None


class Unfinished(DataSource):
    pass


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"Stream": Good}, None),
        ({}, "has no class Stream; let it be Stream, derived from tablecast.panoply.DataSource"),
        ({"Stream": int}, "has a Stream that is no data source"),
        ({"Stream": Unfinished}, "Stream of module made_up has no read; define it"),
        ({"Stream": Good, "CONFIG": []}, "CONFIG of module made_up is a list; make it a dict"),
    ],
)
def test_loading(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], complaint: str | None) -> None:
    module = types.ModuleType("made_up")
    vars(module).update(values)
    monkeypatch.setitem(sys.modules, "made_up", module)
    if complaint is None:
        assert load("made_up").stream is Good
        return
    with pytest.raises(NoSuchDataSource, match=complaint):
        load("made_up")
