"""The keys of the pipeline file about the web page and the endpoints beside it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from cluster.config.types import Flag, Kind, Port, Section


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,255}", text):
        raise ValueError("not a host; write a name or an address, such as 127.0.0.1 or 0.0.0.0")
    return text


HostName = Annotated[str, Kind("host"), AfterValidator(_host)]
HostNames = Annotated[tuple[HostName, ...], Kind("list of hosts")]


class Web(Section):
    """The page of docs/watch.md, served by the pipeline's supervisor."""

    enabled: Flag = Field(default=True, description="Whether it is served at all.")
    host: HostName = Field(
        default="127.0.0.1",
        description="Address to listen on, on the host of the supervisor. Everybody who reaches another than a "
        "loopback address can see the page: it asks for no password.",
    )
    port: Port | None = Field(
        default=None,
        description="Port to listen on; absent, the first free one from 9280 on, kept while the pipeline runs.",
    )
    names: HostNames = Field(
        default=(),
        description="Names by which browsers and Prometheus may call it, besides `localhost` and addresses; "
        "requests to other names are refused, as a stranger's web page could make them.",
    )
