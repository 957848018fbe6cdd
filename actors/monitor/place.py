"""Where a spool is on this host."""

from __future__ import annotations

import os
import re
from pathlib import Path

from actors.errors import SpoolError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def on_this_host(path: str) -> Path:
    """`path` with this host's environment variables in place of ``${NAME}``. Raises :class:`SpoolError`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            host = os.uname().nodename
            raise SpoolError(f"spool {path}: {match[1]} is not set where Ray runs on {host}; set it there")
        return os.environ[match[1]]

    return Path(_VARIABLE.sub(value, path))
