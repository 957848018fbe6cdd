"""Which server a table monitor's `db` means: a URL, several, or an object of the official client."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from actors.callbacks.errors import MonitorError


def source_of(
    db: Any,
    *,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    verify: bool | str | os.PathLike[str] = True,
    timeout: float = 10.0,
) -> dict[str, Any]:
    """Keyword arguments for :class:`~protocols.kinetica.client.KineticaClient`.

    Of a ``gpudb.GPUdb`` the URLs of its ring in failover order, its user name, password and token are taken, unless
    they are given here. Raises :class:`MonitorError` for anything that is neither such an object nor URLs, and for one
    that does not verify certificates.
    """
    if isinstance(db, str):
        urls = [db]
    elif isinstance(db, Sequence) and db and all(isinstance(url, str) for url in db):
        urls = list(db)
    elif _is_gpudb(db):
        urls = [url.url for url in db.get_failover_urls()]
        if username is None and token is None:
            username, password, token = db.username or None, db.password or None, db.oauth_token or None
        if db.skip_ssl_cert_verification and verify is True and any(url.startswith("https:") for url in urls):
            raise MonitorError(
                "db does not verify certificates, and Tablecast always does; give verify=PATH, "
                "the PEM file of the authority that signed the server's"
            )
    else:
        raise MonitorError(f"db is a {type(db).__name__}; give a URL, as http://HOST:9191, or a gpudb.GPUdb")
    if verify is False:
        raise MonitorError(
            "certificates are always verified; give verify=PATH, a PEM file of trusted authorities"
        )
    return {
        "urls": urls,
        "username": username,
        "password": password,
        "token": token,
        "timeout": timeout,
        "verify": verify,
    }


def _is_gpudb(db: object) -> bool:
    package = sys.modules.get("gpudb")  # whoever has such an object has loaded it
    return package is not None and isinstance(db, package.GPUdb)
