"""The kinds of values in a pipeline file: names, URLs, sizes, paths and numbers, with their checks.

Messages never quote a value, because a value may be a credential in the wrong place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from cluster.yaml_source import Expanded

_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,3}))? ?([kKMGT]i?)?B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "K": 10**3}
_UNITS |= {"Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

MIB = 2**20
GIB = 2**30


class Kind(str):
    """What the reference calls the type of a field."""


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", text) or not text.strip("."):  # names become folders
        raise ValueError("not a usable name; use up to 200 of the characters A-Z a-z 0-9 _ - .")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its message may quote a password
        raise ValueError("not a URL; write http://HOST:PORT, port 1 to 65535") from None
    if parts.username is not None or parts.password is not None or "@" in text:
        raise ValueError("credentials in a URL; use the keys username and password, or token")
    http = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not http or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("not an http or https URL; write http://HOST:PORT")
    if "?" in text or "#" in text:
        raise ValueError("a query or fragment in a URL; write only http://HOST:PORT/PATH")
    return text.rstrip("/")


def parse_size(value: Any) -> Any:
    """Bytes of ``512MiB``, ``1.5 GB`` or a whole number."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if not match:
        raise ValueError("not a size; write a number of bytes, or 512MiB, 10GiB, 1.5GB")
    whole, thousandths, unit = match[1], (match[2] or "").ljust(3, "0"), _UNITS[match[3] or ""]
    return int(whole) * unit + int(thousandths) * unit // 1000


def parse_number(value: Any) -> Any:
    """A number that came from the environment; quoted numbers in the file stay text and are refused."""
    if isinstance(value, Expanded):
        if re.fullmatch(r"-?[0-9]{1,15}", value):
            return int(value)
        if re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,9}", value):
            return float(value)
    return value


def _absolute(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, (str, Path)) and str(value) and "\0" not in str(value):
        return Path(os.path.abspath(Path((info.context or {}).get("folder", "."), os.path.expanduser(value))))
    raise ValueError("not a path; write the name of a folder or file")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _not_empty(values: Any) -> Any:
    # Not pydantic's min_length, which counts only the good entries and so reports a bad one twice.
    if not values:
        raise ValueError("must not be empty; add at least one entry")
    return values


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("the same entry twice; keep one of them")
    return values


NotEmpty = AfterValidator(_not_empty)
Name = Annotated[str, Kind("name"), AfterValidator(_name)]
Text = Annotated[str, Kind("text"), Field(max_length=4096)]
Url = Annotated[str, Kind("URL"), AfterValidator(_url)]
Urls = Annotated[
    tuple[Url, ...],
    Kind("URL or list of URLs"),
    BeforeValidator(_listed),
    AfterValidator(_unique),
    NotEmpty,
]
Secret = Annotated[SecretStr, Kind("text, never shown")]
FilePath = Annotated[Path, Kind("path"), BeforeValidator(_absolute)]
Names = Annotated[tuple[Name, ...], Kind("list of names"), AfterValidator(_unique), NotEmpty]
Count = Annotated[
    int, Kind("whole number"), BeforeValidator(parse_number), Field(strict=True, ge=1, le=2**31 - 1)
]
Port = Annotated[int, Kind("port"), BeforeValidator(parse_number), Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[float, Kind("seconds"), BeforeValidator(parse_number), Field(strict=True, gt=0, le=86400)]
Size = Annotated[int, Kind("size"), BeforeValidator(parse_size), Field(strict=True, ge=0, le=2**60)]
LargeSize = Annotated[Size, Kind("size"), Field(ge=MIB)]

OnDecodeFailure = Annotated[Literal["skip", "abort"], Kind("skip or abort")]

Event = Literal["insert", "update", "delete"]
Events = Annotated[
    tuple[Event, ...], Kind("list of insert, update, delete"), AfterValidator(_unique), NotEmpty
]
