"""What `tablecast check` says of endpoints that cannot be used, each in a line and without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.check import probe
from cluster.config import parse
from cluster.errors import NotReachable

SECRET = "s3cr3t"

FILE = """\
pipeline: p
tables:
  - name: clicks
    stream: {v3io: {url: "http://127.0.0.1:1", access_key: "${BAD}", container: users, path: clicks}}
sinks:
  events: {kronos: {url: "http://127.0.0.1:1", token: "${BAD}"}}
spool: {path: ./spool, min_free: 0}
"""


def test_secrets_that_no_header_can_hold_are_told_without_them(tmp_path: Path) -> None:
    config = parse(FILE, f"{tmp_path}/pipeline.yaml", {"BAD": f"{SECRET}\nX-Evil: 1"})
    with pytest.raises(NotReachable) as caught:
        probe(config)
    assert str(caught.value).splitlines() == [
        "table clicks: the access key must be printable ASCII text",
        "sink events: the token is empty or holds characters that no bearer token has",
    ]
