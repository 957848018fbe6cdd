"""Replies: outputs, those of failures among them, and which statuses raise."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
import v3io.dataplane.response

from protocols.v3io import wire
from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official import outputs
from protocols.v3io.official.response import Response

LISTING = (
    b"<ListBucketResult><Name>users</Name><NextMarker>t/k</NextMarker><MaxKeys>1000</MaxKeys>"
    b"<IsTruncated>%s</IsTruncated><CommonPrefixes><Prefix>t/d/</Prefix><ShardCount>8</ShardCount>"
    b"</CommonPrefixes><Contents><Key>t/f</Key><Size>1</Size><LastSequenceId>7</LastSequenceId></Contents>"
    b"</ListBucketResult>"
)


@pytest.mark.parametrize("status", [200, 204, 206, 299, 300, 304, 308, 399, 400, 404, 503])
@pytest.mark.parametrize("expected", [None, "always", "never", [200], (404,), {200, 404, 503}])
def test_the_same_statuses_raise_the_same(status: int, expected: Any) -> None:
    texts = []
    for kind in (v3io.dataplane.response.Response, Response):
        response = kind(None, status, {"Location": "http://elsewhere"}, b"body")
        try:
            response.raise_for_status(expected)
            texts.append("")
        except (HttpResponseError, v3io.dataplane.response.HttpResponseError) as error:
            texts.append(f"{error} {error.status_code}")
    assert texts[0] == texts[1]


def test_errors_pickle_and_say_whether_to_try_again() -> None:
    error = HttpResponseError("text", 503)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status_code, again.status, again.retryable) == ("text", 503, 503, True)
    assert not HttpResponseError("text", 404).retryable


def test_listings_have_numbers_and_a_truth() -> None:
    whole = Response(outputs.GetContainerContentsOutput, 200, {}, LISTING % b"false").output
    assert (whole.max_keys, whole.is_truncated, bool(whole.is_truncated)) == (1000, "false", False)
    assert Response(outputs.GetContainerContentsOutput, 200, {}, LISTING % b"true").output.is_truncated
    [content], [prefix] = whole.contents, whole.common_prefixes
    assert (content.key, content.size, content.last_sequence_id, content.mode) == ("t/f", 1, 7, None)
    assert (prefix.prefix, prefix.shard_count) == ("t/d/", 8)


def test_moments_are_exact() -> None:
    moment = datetime(2026, 11, 21, 1, 2, 3, 678901, UTC)
    body = b'{"Item":{"at":{"TS":"%d:678901999"},"far":{"TS":"999999999999999999:1"}}}'
    item = Response(outputs.GetItemOutput, 200, {}, body % int(moment.timestamp())).output.item
    assert item == {"at": moment, "far": wire.Timestamp(999999999999999999, 1)}


def test_the_output_of_a_failure_has_its_error_alone() -> None:
    body = b'{"ErrorCode":-2,"ErrorMessage":"No such file or directory"}'
    output = Response(outputs.GetItemOutput, 404, {}, body).output
    assert output.error == {"ErrorCode": -2, "ErrorMessage": "No such file or directory"}
    assert (output.error_code, output.error_message) == (-2, "No such file or directory")
    for taken in (output, copy.copy(output), pickle.loads(pickle.dumps(output))):
        with pytest.raises(AttributeError, match="no item: the call failed with status 404: No such file"):
            _ = taken.item
    assert Response(outputs.GetItemOutput, 502, {}, b"<html>").output.error == {}


def test_no_output() -> None:
    assert Response(None, 200, {}, b"data").output is None
    assert Response(outputs.GetItemOutput, 200, {}, b"").output is None


@pytest.mark.parametrize(
    "body", [b"<html>", b"{", b"[]", b"{}", b'{"Item":{"a":{"N":"x"}}}', b"<a/>", b"\xff"]
)
@pytest.mark.parametrize("kind", [outputs.GetItemOutput, outputs.GetRecordsOutput, outputs.SeekShardOutput])
def test_what_is_none_of_v3ios_replies(body: bytes, kind: Any) -> None:
    with pytest.raises(HttpResponseError, match="Failed to parse response with status 200"):
        _ = Response(kind, 200, {}, body).output
