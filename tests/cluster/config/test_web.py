"""The keys of the web page: loopback unless the file says otherwise, and mistakes that name the key."""

from __future__ import annotations

import pytest

from cluster.config import ConfigError, PipelineConfig, parse

FILE = """\
pipeline: p
source: {kinetica: {url: http://127.0.0.1:9191}}
tables: [{name: t}]
sinks: {events: {kronos: {url: "http://127.0.0.1:8151"}}}
"""


def read(web: str) -> PipelineConfig:
    return parse(f"{FILE}web: {web}\n", "/f.yaml", {})


def test_on_loopback_unless_told_otherwise() -> None:
    web = read("{}").web
    assert (web.enabled, web.host, web.port, web.names) == (True, "127.0.0.1", None, ())
    assert parse(FILE, "/f.yaml", {}).web == web


def test_what_can_be_said() -> None:
    web = read("{host: 0.0.0.0, port: 9280, names: [tablecast.example.com], enabled: false}").web
    assert (web.enabled, web.host, web.port, web.names) == (
        False,
        "0.0.0.0",
        9280,
        ("tablecast.example.com",),
    )


@pytest.mark.parametrize(
    ("web", "message"),
    [
        (
            "{host: http://x}",
            "web.host: not a host; write a name or an address, such as 127.0.0.1 or 0.0.0.0",
        ),
        ("{port: 0}", "web.port: "),
        ("{names: [a b]}", "web.names[0]: not a host"),
        ("{prot: 1}", "web.prot: "),
    ],
)
def test_mistakes(web: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:5: ") as error:
        read(web)
    assert message in str(error.value)
