"""A pipeline file as a whole: its keys, types, defaults and meaning.

The fields' descriptions are the text of ``docs/configuration.md`` (made by ``reference.py``).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator

from cluster.config.contradictions import contradictions
from cluster.config.decoders import Decoders
from cluster.config.sinks import Sink
from cluster.config.tables import Source, Table
from cluster.config.tuning import Spool, Tuning
from cluster.config.types import (
    Count,
    Name,
    NotEmpty,
    Section,
)
from cluster.config.web import Web
from cluster.config.yaml_source import show_path


class PipelineConfig(Section):
    """A whole pipeline file."""

    pipeline: Name = Field(description="Name of the pipeline on the cluster; begins every record's origin.")
    source: Source | None = Field(
        default=None,
        description="Where changes come from; required unless all tables have a `datasource` or `stream`.",
    )
    tables: Annotated[tuple[Table, ...], NotEmpty] = Field(description="The tables to follow.")
    sinks: Annotated[dict[Name, Sink], NotEmpty] = Field(
        description="Where events go: a name of your choice for each."
    )
    monitors_per_actor: Annotated[Count, Field(le=100)] = Field(
        default=1,
        description="Small tables that share one process and one spool, at most; each keeps its own monitor. For "
        "tables that have no spool yet: docs/tables.md.",
    )
    decoders: Decoders = Field(default=Decoders(), description="Bounds of the pool of decode actors.")
    spool: Spool = Field(default_factory=Spool, description="The monitors' durable logs on local disk.")
    web: Web = Field(default=Web(), description="The web page and the endpoints of docs/watch.md.")
    tuning: Tuning = Field(default=Tuning(), description="Sizes that rarely need a change.")

    @model_validator(mode="after")
    def _agrees(self) -> PipelineConfig:
        for path, text in contradictions(self.dump()):
            raise ValueError(f"{show_path(path)}: {text}")
        return self

    def sinks_of(self, table: Table) -> tuple[str, ...]:
        """Names of the sinks that receive `table`."""
        return table.sinks or tuple(self.sinks)

    def dump(self) -> dict[str, Any]:
        """JSON-able values **with credentials**, for actors; ``model_validate`` takes them back."""
        plain: dict[str, Any] = json.loads(json.dumps(self.model_dump(by_alias=True), default=_plain))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all values; equal digests mean that a running pipeline is what the file says.

        It covers the credentials, so it belongs into comparisons, not into logs.
        """
        canonical = json.dumps(self.dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
