"""What clients ask when they connect: is the server running, and which version and ports it has."""

from __future__ import annotations

import json
from typing import Any

Request = dict[str, Any]
Response = dict[str, Any]

#: The version clients see; from 7.2.3.18 on they send partial records with ``request_schema_str``.
CORE_VERSION = "7.2.3.18.20260101"


class System:
    """A single running server whose monitors are published on `monitor_port`."""

    def __init__(self, monitor_port: int) -> None:
        self._monitor_port = monitor_port

    def show_system_status(self, request: Request) -> Response:
        status = {"system": {"status": "running"}, "ha_status": {"drained": "not_drained"}}
        return {"status_map": {name: json.dumps(value) for name, value in status.items()}, "info": {}}

    def show_system_properties(self, request: Request, host: str) -> Response:
        """The properties; `host` is the address that the client used, which is the one it is told to use."""
        return {
            "property_map": {
                "version.gpudb_core_version": CORE_VERSION,
                "conf.enable_ha": "FALSE",
                "conf.enable_worker_http_servers": "FALSE",
                "conf.enable_httpd_proxy": "FALSE",
                "conf.use_https": "FALSE",
                "conf.number_of_hosts": "1",
                "conf.host0_public_urls": f"http://{host}",
                "conf.set_monitor_port": str(self._monitor_port),
            },
            "info": {},
        }
