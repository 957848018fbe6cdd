"""The options of a table monitor, by the names and in the units of the official client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from actors.callbacks.errors import MonitorError
from protocols.kinetica.wire import DEFAULT_MONITOR_PORT

#: Milliseconds in a minute: ``inactivity_timeout`` is set in minutes, and reads in milliseconds.
_MINUTE = 60_000


class Options:
    """Options of a table monitor; `_dict` sets some of them, by name.

    Attributes:
        inactivity_timeout: the server is asked at the latest after so long whether the table is still there; set in
            minutes, read in milliseconds (as the official client has it), default 20 minutes. It is asked every second
            anyway, so only shorter times change anything.
        max_retries: how often the constructor tries again to reach the monitor port; default 5.
        wait_interval: whole seconds between these tries; default 1.
        monitor_port: port of the table-monitor publisher. Where it is not set, the server is asked for it; it reads
            9002 then, the port of a server that does not say.

    Raises :class:`MonitorError` for unknown options and for values of the wrong type or range.
    """

    _supported_options = ("inactivity_timeout", "max_retries", "wait_interval", "monitor_port")

    def __init__(self, _dict: dict[str, Any] | None = None) -> None:
        self._inactivity_timeout: float = 20 * _MINUTE
        self._max_retries = 5
        self._wait_interval = 1
        self._monitor_port: int | None = None
        if _dict is None:
            return
        if not isinstance(_dict, dict):
            raise MonitorError(f"options are given as a dict, not as a {type(_dict).__name__}")
        if unknown := [str(key) for key in _dict if key not in self._supported_options]:
            raise self._unknown(unknown)
        for key, value in _dict.items():
            setattr(self, key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.removeprefix("_") not in self._supported_options:
            raise self._unknown([name])
        super().__setattr__(name, value)

    def _unknown(self, names: Sequence[str]) -> MonitorError:
        known = ", ".join(self._supported_options)
        return MonitorError(f"unknown options: {', '.join(names)}; there are {known}")

    @staticmethod
    def default() -> Options:
        """Options with all defaults."""
        return Options()

    @property
    def inactivity_timeout(self) -> float:
        return self._inactivity_timeout

    @inactivity_timeout.setter
    def inactivity_timeout(self, value: float) -> None:
        try:
            minutes = float(value)
        except (TypeError, ValueError, OverflowError):
            raise MonitorError("inactivity_timeout is not a number of minutes") from None
        if not 0 < minutes < math.inf:
            raise MonitorError(f"inactivity_timeout is {value}; give a number of minutes above 0")
        self._inactivity_timeout = minutes * _MINUTE

    @property
    def max_retries(self) -> int:
        return self._max_retries

    @max_retries.setter
    def max_retries(self, value: int) -> None:
        self._max_retries = _whole("max_retries", value)

    @property
    def wait_interval(self) -> int:
        return self._wait_interval

    @wait_interval.setter
    def wait_interval(self, value: int) -> None:
        self._wait_interval = _whole("wait_interval", value)

    @property
    def monitor_port(self) -> int:
        return DEFAULT_MONITOR_PORT if self._monitor_port is None else self._monitor_port

    @monitor_port.setter
    def monitor_port(self, value: int) -> None:
        if not 0 < _whole("monitor_port", value) < 65536:
            raise MonitorError(f"monitor_port is {value}; give a port from 1 to 65535")
        self._monitor_port = value

    @property
    def given_port(self) -> int | None:
        """The port that was set, None if the server is to be asked."""
        return self._monitor_port

    def as_json(self) -> dict[str, Any]:
        """The options as a dict."""
        return {name: getattr(self, name) for name in self._supported_options}

    def as_dict(self) -> dict[str, Any]:
        """The options as a dict."""
        return self.as_json()


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MonitorError(f"{name} is {value!r}; give a whole number, not below 0")
    return value
