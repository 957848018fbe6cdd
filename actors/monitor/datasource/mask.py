"""Keeps a data source's parameters out of what it logs and of what goes wrong in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

#: What stands for a parameter.
MASK = "***"

#: Shorter texts are no secrets, and would be found in every sentence.
SHORTEST = 5


class Mask:
    """Replaces the texts of parameters in other texts, plain or as URLs, JSON and Python have them. Thread-safe.

    All parameters are masked but those that the source's ``CONFIG`` says ``"secret": False`` of.
    """

    def __init__(self) -> None:
        self._texts: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def add(self, values: object) -> None:
        """Mask the texts in `values`, however deep, from now on."""
        with self._lock:
            found = {form for text in _texts(values) for form in _forms(text)}
            # The longest first: one may be part of another.
            self._texts = tuple(sorted({*self._texts, *found}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text

    def line(self, error: BaseException, length: int = 300) -> str:
        """An error in one line."""
        text = " ".join(self(str(error)).split()) or "no message"
        return f"{type(error).__name__}: {text}"[:length]


def _texts(values: object) -> Iterator[str]:
    if isinstance(values, Mapping):
        for value in values.values():
            yield from _texts(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)
    elif isinstance(values, (str, int)) and not isinstance(values, bool) and len(str(values)) >= SHORTEST:
        yield str(values)


def _forms(text: str) -> tuple[str, ...]:
    """What a text looks like in messages."""
    urls = (quote(text, "", errors="replace"), quote_plus(text, errors="replace"))
    return (text, *urls, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])


def secret_params(params: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `config`, a source's ``CONFIG``, does not say ``"secret": False`` of."""
    entries = config.get("params")
    plain = {
        entry.get("name")
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping) and entry.get("secret") is False
    }
    return {name: value for name, value in params.items() if name not in plain}
