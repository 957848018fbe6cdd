"""Panoply's wire format: records as text, the text as one SQS ``SendMessage``, credentials as a queue's address.

As version 3.2.0 of the official SDK puts it on the wire, byte for byte, but for two faults of it: attribute values
are percent-encoded, so that a ``+`` in a secret arrives as one, and NaN, which is no JSON, is refused.

::

    message = record LF LF record LF LF ...       record: JSON, ", " and ": ", ASCII, "__table" names the table
    body    = Action=SendMessage & MessageBody=message & key & secret & sdk      as a form; LF stands as it is
    address = https://sqs.REGION.amazonaws.com/AWSACCOUNT/sdk-ACCOUNT-RAND2
              apikey = ACCOUNT/...      apisecret = base64(RAND2/.../AWSACCOUNT/REGION)
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any
from urllib.parse import quote

#: Most characters of a percent-encoded message with more than one record; the SDK sends above this.
MAX_ENCODED = 250 * 1024

#: What SQS takes at most unless a queue is set up for more: bytes of the message and its attributes.
MAX_MESSAGE = 256 * 1024

#: The key that names a record's table.
TABLE_KEY = "__table"

#: What the SDK says of itself; the reader of the queue may look at it.
SDK_NAME = "panoply-python-sdk-3.2.0"

CONTENT_TYPE = "application/x-www-form-urlencoded"

#: The bytes that stand for themselves in a form, and the newline, which Panoply has there as it is.
UNESCAPED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/\n"

_PART = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Panoply gives out for a data source; :attr:`path` is as secret as they are.

    Raises ``ValueError``, without quoting them, if they cannot be Panoply's.
    """

    apikey: str = field(repr=False)
    apisecret: str = field(repr=False)
    region: str = field(init=False)
    path: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        account = self.apikey.split("/")[0]
        try:
            parts = base64.b64decode(self.apisecret, validate=True).decode("ascii").split("/")
        except (binascii.Error, ValueError):
            parts = []
        if len(parts) < 4 or not all(_PART.fullmatch(part) for part in (parts[0], parts[2], parts[3])):
            raise ValueError("the apisecret is not one of Panoply's; copy it whole, with the = at its end")
        if not _PART.fullmatch(account) or not re.fullmatch(r"[!-~]{1,2048}", self.apikey):
            raise ValueError("the apikey is not one of Panoply's; it looks like ACCOUNT/WORD")
        object.__setattr__(self, "region", parts[3])
        object.__setattr__(self, "path", f"/{parts[2]}/sdk-{account}-{parts[0]}")

    @property
    def url(self) -> str:
        """Base URL of the region's SQS."""
        return f"https://sqs.{self.region}.amazonaws.com"

    def attributes(self) -> list[tuple[str, str]]:
        """Name and value of the attributes that every message carries."""
        return [("key", self.apikey), ("secret", self.apisecret), ("sdk", SDK_NAME)]

    @property
    def overhead(self) -> int:
        """Bytes of the attributes, as SQS counts them against a message's limit."""
        return sum(len(name) + len("String") + len(value) for name, value in self.attributes())


def _text_of(value: object) -> str:
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON; write it as text")


_encode = json.JSONEncoder(allow_nan=False, default=_text_of).encode


def encode_record(table: str, record: Mapping[str, Any]) -> bytes:
    """A record of `table` as it stands in a message; dates and times as ISO text.

    Raises ``ValueError`` for NaN, infinities, half surrogate pairs and a record that is nested too deep, ``TypeError``
    for what else JSON has no form for.
    """
    try:
        text = _encode({**record, TABLE_KEY: table})
        if r"\ud" in text:  # half a pair, perhaps
            json.dumps(json.loads(text), ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("the record is nested too deep for JSON") from None
    except UnicodeEncodeError:
        raise ValueError("the record has half of a surrogate pair, which is no text") from None
    return text.encode("ascii") + b"\n\n"


def percent_encoded(text: bytes) -> bytes:
    """`text` as it stands in a form; what ``urllib.parse.quote`` with ``safe="/\n"`` does, several times as fast."""
    escaped = set(text.translate(None, UNESCAPED))
    if ord("%") in escaped:  # first, as all others bring more of it
        escaped.remove(ord("%"))
        text = text.replace(b"%", b"%25")
    for byte in escaped:
        text = text.replace(b"%c" % byte, b"%%%02X" % byte)
    return text


def encoded_length(text: bytes) -> int:
    """How many characters `text` has once it is percent-encoded."""
    return len(text) + 2 * len(text.translate(None, UNESCAPED))


def request_body(encoded: bytes | memoryview, credentials: Credentials) -> bytes:
    """The form that sends a message of any number of records, which is percent-encoded already."""
    parts = []
    for number, (name, value) in enumerate(credentials.attributes(), 1):
        prefix = f"MessageAttribute.{number}"
        parts += [f"{prefix}.Name={name}", f"{prefix}.Value.DataType=String"]
        parts.append(f"{prefix}.Value.StringValue={quote(value, safe='/=')}")
    attributes = "&".join(parts).encode("ascii")
    return b"".join((b"Action=SendMessage&MessageBody=", encoded, b"&", attributes))
