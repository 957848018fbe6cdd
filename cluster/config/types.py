"""The kinds of values in a pipeline file: names, URLs, sizes, paths and numbers, with their checks.

Messages never quote a value, because a value may be a credential in the wrong place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
)

from cluster.config.yaml_source import Expanded

_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,3}))? ?([kKMGT]i?)?B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "K": 10**3}
_UNITS |= {"Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

MIB = 2**20
GIB = 2**30


class Kind(str):
    """What the reference calls the type of a field."""


class Params(dict[str, Any]):
    """Values of which any may be a credential: they are not shown."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name}: ***' for name in self)}}}"

    __str__ = __repr__


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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


def parse_duration(value: Any) -> Any:
    """Seconds of ``10min``, ``1.5 h`` or a number of seconds."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", value) and isinstance(value, Expanded):
        return float(value)
    match = _DURATION.fullmatch(value)
    if not match:
        raise ValueError("not a duration; write a number of seconds, or 30s, 10min, 1.5h, 2d")
    return float(match[1]) * _SECONDS[match[2]]


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


def _inner_path(text: str) -> str:
    names = text.strip("/").split("/")
    if not all(name.strip(".") for name in names) or not text.isprintable() or len(text) > 1024:
        raise ValueError("not a path in a container; write FOLDER/FOLDER")
    return "/".join(names)


_SCHEMES = ("s3", "gs", "gcs", "abfs", "hdfs", "file")


def _place(value: Any, info: ValidationInfo) -> Any:
    """A local folder, made absolute, or a URL of a file system that pyarrow knows."""
    if not isinstance(value, str) or "://" not in value:
        return _absolute(value, info)
    scheme, _, rest = value.partition("://")
    if scheme not in _SCHEMES or not rest.isprintable() or not rest.strip("/"):
        raise ValueError(f"not a URL of files; write one of {', '.join(_SCHEMES)}, as in s3://BUCKET/PATH")
    if "@" in rest or "secret" in rest.lower():
        raise ValueError(
            "credentials in a URL; give them by the environment of the cluster, as AWS_ACCESS_KEY_ID"
        )
    return value


def _share(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError("not a share; write a number between 0 and 1")
    return value


def _cpus(value: float) -> float:
    # What Ray can reserve.
    if not (0 < value < 1 and round(value, 4) == value) and not (1 <= value <= 1024 and value == int(value)):
        raise ValueError("not a number of CPUs; write a fraction such as 0.25, or a whole number")
    return value


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
InnerPath = Annotated[str, Kind("path in the container"), AfterValidator(_inner_path)]
Column = Annotated[str, Kind("column"), Field(min_length=1, max_length=200)]
Columns = Annotated[
    tuple[Column, ...],
    Kind("column or list of columns"),
    BeforeValidator(_listed),
    AfterValidator(_unique),
    NotEmpty,
]
Sql = Annotated[str, Kind("SQL expression"), Field(min_length=1, max_length=4096)]
Place = Annotated[Path | str, Kind("path or URL"), BeforeValidator(_place)]
Names = Annotated[tuple[Name, ...], Kind("list of names"), AfterValidator(_unique), NotEmpty]
Count = Annotated[
    int, Kind("whole number"), BeforeValidator(parse_number), Field(strict=True, ge=1, le=2**31 - 1)
]
Port = Annotated[int, Kind("port"), BeforeValidator(parse_number), Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[float, Kind("seconds"), BeforeValidator(parse_number), Field(strict=True, gt=0, le=86400)]
Share = Annotated[
    float, Kind("share"), BeforeValidator(parse_number), Field(strict=True), AfterValidator(_share)
]
Cpus = Annotated[
    float, Kind("CPUs"), BeforeValidator(parse_number), Field(strict=True), AfterValidator(_cpus)
]
Duration = Annotated[
    float, Kind("duration"), BeforeValidator(parse_duration), Field(strict=True, ge=0, le=366 * 86400)
]
Size = Annotated[int, Kind("size"), BeforeValidator(parse_size), Field(strict=True, ge=0, le=2**60)]
Options = Annotated[
    dict[str, Any], Kind("mapping, never shown"), AfterValidator(Params), PlainSerializer(dict)
]
Flag = Annotated[bool, Kind("true or false"), Field(strict=True)]
LargeSize = Annotated[Size, Kind("size"), Field(ge=MIB)]

OnDecodeFailure = Annotated[Literal["skip", "abort"], Kind("skip or abort")]

Event = Literal["insert", "update", "delete"]
Events = Annotated[
    tuple[Event, ...], Kind("list of insert, update, delete"), AfterValidator(_unique), NotEmpty
]

Compression = Annotated[
    Literal["zstd", "snappy", "gzip", "lz4", "none"], Kind("zstd, snappy, gzip, lz4 or none")
]
