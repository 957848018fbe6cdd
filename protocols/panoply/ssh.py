"""The description of an SSH tunnel, checked as Panoply's SDK does. Tunnels themselves are not opened here."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from protocols.panoply.source_errors import IncorrectParamError

_REQUIRED = ("active", "host", "username", "privateKey")
_SSH_PORT = 22


class SSHTunnel:
    """A tunnel to `host`:`port`, as the bastion sees it, which the platform opens: there is nothing to do here.

    Raises :class:`IncorrectParamError` for a description that cannot be used, and for ``platform_ssh=False``: let
    ``ssh -N -L`` forward the port beside the pipeline, and give the data source that one.
    """

    server = None

    def __init__(self, host: str, port: int, ssh_tunnel: dict[str, Any], platform_ssh: bool = True) -> None:
        if not isinstance(port, int) or isinstance(port, bool):
            raise IncorrectParamError("Port should be instance of `int`")
        if not 0 <= port <= 65535:
            raise IncorrectParamError("Port should be in range [0: 65535]")
        if not isinstance(ssh_tunnel, dict):
            raise IncorrectParamError("SSH tunnel should be `dict` object")
        for key in _REQUIRED:
            if not ssh_tunnel.get(key):
                raise IncorrectParamError(f"SSH tunnel object should contain `{key}` property")
        if not platform_ssh:
            raise IncorrectParamError(
                "no tunnel is opened here: forward the port with `ssh -N -L`, and give the data source that one"
            )
        self.host = host
        self.port = port
        self.tunnel = {**ssh_tunnel, "port": int(ssh_tunnel.get("port") or _SSH_PORT)}

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __str__(self) -> str:
        return f"SSH tunnel to {self.tunnel['host']}, for user {self.tunnel['username']}"

    def __repr__(self) -> str:
        return f"SSHTunnel({self.host!r}, {self.port})"  # the tunnel has a key
