"""Panoply's wire format: the specification's vectors, and what holds for any record."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.panoply import wire
from tests.sqs import secret

SECRET = "cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg=="
VECTOR_A = (
    "Action=SendMessage&MessageBody=%7B%22foo%22%3A%20%22bar%22%2C%20%22n%22%3A%201%2C%20%22f%22%3A%201.5%2C%20"
    "%22b%22%3A%20true%2C%20%22z%22%3A%20null%2C%20%22u%22%3A%20%22h%5Cu00e9%20%5Cu2603%20%5Cud83d%5Cude00%22%2C"
    "%20%22amp%22%3A%20%22a%26b%3Dc%2Bd%20e/f%25%5Cn%22%2C%20%22nest%22%3A%20%7B%22a%22%3A%20%5B1%2C%202%5D%7D"
    "%2C%20%22__table%22%3A%20%22tablename%22%7D\n\n"
    "%7B%22a%22%3A%201%2C%20%22__table%22%3A%20%22t2%22%7D\n\n"
    "%7B%22a%22%3A%202%2C%20%22__table%22%3A%20%22t2%22%7D\n\n"
    "&MessageAttribute.1.Name=key&MessageAttribute.1.Value.DataType=String&MessageAttribute.1.Value.StringValue="
    "acct/rand1&MessageAttribute.2.Name=secret&MessageAttribute.2.Value.DataType=String&MessageAttribute.2.Value."
    "StringValue=cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg==&MessageAttribute.3.Name=sdk&MessageAttribute.3.Value."
    "DataType=String&MessageAttribute.3.Value.StringValue=panoply-python-sdk-3.2.0"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_vector_a() -> None:
    credentials = wire.Credentials("acct/rand1", SECRET)
    record = {"foo": "bar", "n": 1, "f": 1.5, "b": True, "z": None, "u": "hé ☃ 😀", "amp": "a&b=c+d e/f%\n"}
    record |= {"nest": {"a": [1, 2]}}
    message = wire.encode_record("tablename", record)
    message += wire.encode_record("t2", {"a": 1, "__table": "user"}) + wire.encode_record("t2", {"a": 2})
    assert wire.request_body(wire.percent_encoded(message), credentials).decode() == VECTOR_A
    assert len(VECTOR_A) == 871


def test_vector_b() -> None:
    message = wire.encode_record("tablename", {"foo": "b+r & = % ☃ \n x"}) + wire.encode_record(
        "t2", {"a": 1}
    )
    assert hashlib.md5(message).hexdigest() == "0840240ffa2ad034fcb9fbe942d1957d"


def test_address() -> None:
    credentials = wire.Credentials("acct/rand1", SECRET)
    address = credentials.url + credentials.path
    assert address == "https://sqs.region.amazonaws.com/awsaccount/sdk-acct-rand2"


def test_a_plus_in_credentials_is_encoded() -> None:
    plus = base64.b64encode(b"rand2/u~~>>>~/1/r").decode()
    assert "+" in plus
    form = wire.request_body(b"", wire.Credentials("acct/a+b", plus)).decode()
    assert f"StringValue={plus.replace('+', '%2B')}&" in form
    assert "StringValue=acct/a%2Bb&" in form
    assert "+" not in form


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("acct/x", ""),
        ("acct/x", "!!!"),
        ("acct/x", SECRET[:-1]),
        ("acct/x", "cmFuZDI="),
        ("acct/x", secret(rand="a b")),
        ("acct/x", secret(region="evil.example/")),
        ("", SECRET),
        ("/x", SECRET),
        ("a b/x", SECRET),
        ("acct/x\r\n", SECRET),
    ],
)
def test_credentials_that_cannot_be_are_refused_unquoted(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"not one of Panoply's; (copy|it looks)") as caught:
        wire.Credentials(key, value)
    assert not value or value not in str(caught.value)


def test_credentials_do_not_show() -> None:
    shown = repr(wire.Credentials("acct/rand1", SECRET))
    assert shown == "Credentials(region='region')"


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_any_record_survives(record: dict[str, Any]) -> None:
    text = wire.encode_record("t", record)
    assert text.endswith(b"}\n\n")
    assert text.count(b"\n") == 2
    assert json.loads(text) == record | {"__table": "t"}
    encoded = wire.request_body(wire.percent_encoded(text), wire.Credentials("a/b", SECRET)).split(b"&")[1]
    encoded = encoded.removeprefix(b"MessageBody=")
    assert len(encoded) == wire.encoded_length(text)
    assert unquote_to_bytes(encoded) == text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        wire.encode_record("t", {"x": value})
