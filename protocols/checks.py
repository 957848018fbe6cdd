"""Arguments of the clients, checked at the call: ``TypeError`` and ``ValueError`` that name them."""

from __future__ import annotations

import os
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit


def check_type(what: str, value: object, kind: type) -> Any:
    """`value`, which is a `kind`; True and False are no numbers."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{what} must be {kind.__name__}, not {type(value).__name__}")
    return value


def check_number(what: str, value: float, least: float = 0) -> float:
    """`value`, which is finite and at least `least`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, not {type(value).__name__}")
    if not least <= value < float("inf"):
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


def check_timeout(value: float, what: str = "timeout") -> float:
    """`value`, in seconds, which is more than 0."""
    if not check_number(what, value):
        raise ValueError(f"{what} must be more than 0 seconds")
    return value


def check_url(value: object, advice: str, what: str = "url") -> SplitResult:
    """The parts of an HTTP URL with a host, and a port that can be; else a ``ValueError`` that says `advice`.

    The URL is not quoted: it may hold a password in a place where it cannot be told from the rest.
    """
    try:
        parts: SplitResult = urlsplit(check_type(what, value, str))
        possible = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        possible = False
    if not possible:
        raise ValueError(advice)
    return parts


def check_token(value: str) -> str:
    """A bearer token without the line end that tokens from files have; it is not quoted in errors."""
    token: str = check_type("token", value, str).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty or holds characters that no bearer token has")
    return token


def check_verify(value: object) -> Literal[True] | str:
    """True, or the path of a file or folder of trusted certificates, which is there; there is no way not to check."""
    if value is True:
        return True
    if not isinstance(value, (str, os.PathLike)):
        kind = repr(value) if value is False else type(value).__name__
        raise TypeError(f"verify must be True or the path of a file of trusted certificates, not {kind}")
    if not os.path.exists(value):
        raise ValueError(
            f"verify names no file: {os.fspath(value)!r}; give the PEM file of trusted authorities"
        )
    return os.fspath(value)


def check_callable(what: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{what} must be a function, not {type(value).__name__}")
