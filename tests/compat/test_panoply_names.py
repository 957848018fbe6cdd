"""Every name, argument and default of Panoply's SDK 3.2.0, but for those of data sources."""

from __future__ import annotations

import base64

import pytest

from tablecast import panoply
from tests.compat.names import REQUIRED, Name, check

NAMES = [
    Name("SDK", {"apikey": REQUIRED, "apisecret": REQUIRED}),
    Name("SDK.write", {"table": REQUIRED, "record": REQUIRED}),
    Name("SDK.on", {"name": REQUIRED, "fn": REQUIRED}),
    Name("SDK.fire", {"name": REQUIRED, "data": REQUIRED}),
    Name("SDK.qurl"),
    Name("SDK.account"),
    Name("SDK.logger"),
    Name("MAXSIZE"),
    Name("FLUSH_TIMEOUT"),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_names(name: Name) -> None:
    check(name, panoply, "Panoply")


def test_values() -> None:
    secret = base64.b64encode(b"rand2/uuid/account/region").decode()
    with panoply.SDK("acct/rand1", secret) as sdk:
        assert (sdk.apikey, sdk.apisecret) == ("acct/rand1", secret)
        assert sdk.qurl == "https://sqs.region.amazonaws.com/account/sdk-acct-rand2"
    assert (panoply.MAXSIZE, panoply.FLUSH_TIMEOUT) == (256_000, 2.0)
