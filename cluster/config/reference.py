"""Makes ``docs/configuration.md`` of the models; run with ``-m``, it writes the page to its output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from cluster.config.errors import inner
from cluster.config.pipeline import PipelineConfig
from cluster.config.types import GIB, MIB, Kind

_HEAD = """\
# The pipeline file

Every key of a pipeline file (`examples/pipeline.yaml` is one). This page is made from the models in
`cluster/config/`; `python -m cluster.config.reference > docs/configuration.md` makes it anew.

* Faults are reported all at once, a line each: `FILE:LINE: key.path: what is wrong; what to do`.
  Unknown keys are faults.
* In text, `${NAME}` stands for the environment variable NAME, which must be set; `${NAME:-default}` has a
  default for when it is unset or empty; `$$` is a dollar sign. Within `{...}` put such text in quotes.
* A *name* has up to 200 of the characters `A-Z a-z 0-9 _ - .`, as names become parts of actor names,
  streams and origins.
* A *size* is a number of bytes, or one with a unit: `512MiB`, `10GiB`, `1.5GB` (kB, MB, GB, TB are powers of
  1000; KiB, MiB, GiB, TiB of 1024).
* A relative *path* starts from the pipeline file's folder; `~` is the home folder.
* A whole table's changes form the feeds `NAME`, `NAME.updates`, `NAME.deletes` and `NAME.changes`.

| key | type | default | meaning |
|---|---|---|---|
"""


def reference() -> str:
    """The page, in Markdown."""
    return _HEAD + "".join(_rows(PipelineConfig, ""))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        held = inner(field.annotation)
        section = isinstance(held, type) and issubclass(held, BaseModel)
        name = field.alias or name
        yield f"| `{prefix}{name}` | {_type(field)} | {_default(field, section)} | {field.description} |\n"
        if section:
            origin = get_origin(field.annotation)
            suffix = "[]" if origin is tuple else ".NAME" if origin is dict else ""
            yield from _rows(held, f"{prefix}{name}{suffix}.")


def _type(field: FieldInfo) -> str:
    # Of `Port | None` the marks stay with its first part; other annotations lose theirs to the field.
    optional = [mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    for mark in [*reversed(field.metadata), *optional]:
        if isinstance(mark, Kind):
            return mark
    origin = get_origin(field.annotation)
    return "list of mappings" if origin is tuple else "mapping, by name" if origin is dict else "mapping"


def _default(field: FieldInfo, section: bool) -> str:
    value: Any = field.default
    if field.is_required():
        return "**required**"
    if section or value is None:
        return "–"
    if isinstance(value, SecretStr) or value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    if isinstance(value, Path):
        return f"`./{value}`"
    for unit, size in (("GiB", GIB), ("MiB", MIB)):
        if isinstance(value, int) and value >= size and value % size == 0:
            return f"`{value // size}{unit}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
