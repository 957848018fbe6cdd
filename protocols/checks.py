"""Arguments of the clients, checked at the call: ``TypeError`` and ``ValueError`` that name them."""

from __future__ import annotations

from typing import Any


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


def check_callable(what: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{what} must be a function, not {type(value).__name__}")
