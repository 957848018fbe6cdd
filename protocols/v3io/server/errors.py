"""How the embedded server says no: an HTTP status, V3IO's error code and a text."""

from __future__ import annotations

from protocols.v3io import wire


class Refused(Exception):
    """The request changes nothing and ends with this status, code and text."""

    def __init__(self, status: int, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def invalid(reason: str) -> Refused:
    """A request that is malformed or asks for what cannot be."""
    return Refused(400, wire.INVALID_ARGUMENT, f"InvalidArgumentException: {reason}")


def no_such_file() -> Refused:
    return Refused(404, wire.NO_SUCH_FILE, "No such file or directory")


def not_a_directory() -> Refused:
    return Refused(400, wire.NOT_A_DIRECTORY, "Not a directory")


def is_a_directory() -> Refused:
    return Refused(400, wire.IS_A_DIRECTORY, "Is a directory")
