"""Calls to objects, ``client.object``, and to containers, ``client.container``; see ``model.py``."""

from __future__ import annotations

from protocols.v3io.official import calls
from protocols.v3io.official.calls import Body
from protocols.v3io.official.model import Model, R
from protocols.v3io.official.response import Allowed


class Object(Model[R]):
    """Objects: bytes at a path."""

    def head(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Ask for the headers alone; ``Content-Length`` is the size, 0 of a directory."""
        call = calls.head_object(container, path)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def get(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        offset: int | None = None,
        num_bytes: int | None = None,
    ) -> R:
        """Read an object, or `num_bytes` of it from `offset`, into the response's ``body``."""
        call = calls.get_object(container, path, offset, num_bytes)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def put(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        body: Body = None,
        append: bool | None = None,
    ) -> R:
        """Replace an object, or add to its end; directories are made as needed.

        Args:
            body: text, sent as UTF-8, bytes, or a file opened as ``"rb"``. A path that ends in a slash, without a
                body, makes a directory.
        """
        call = calls.put_object(container, path, body, append)
        return self._do(call, access_key, raise_for_status, transport_actions)

    def delete(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
    ) -> R:
        """Delete an object, an item or an empty directory."""
        call = calls.delete_object(container, path)
        return self._do(call, access_key, raise_for_status, transport_actions)


class Container(Model[R]):
    """Containers: what is in their directories."""

    def list(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        transport_actions: None = None,
        get_all_attributes: bool | None = None,
        directories_only: bool | None = None,
        limit: int | None = None,
        marker: str | None = None,
    ) -> R:
        """List a directory, "" for the whole container: ``output.contents`` and ``output.common_prefixes``.

        Args:
            get_all_attributes: of each entry also its mode, owner and times.
            limit: most entries; None for what the server gives, 1000.
            marker: ``output.next_marker`` of the page before, if its ``output.is_truncated``.
        """
        call = calls.list_directory(
            container,
            path,
            get_all_attributes=get_all_attributes,
            directories_only=directories_only,
            limit=limit,
            marker=marker,
        )
        return self._do(call, access_key, raise_for_status, transport_actions)
