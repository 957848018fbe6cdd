"""What leads from a running pipeline to the one that a changed file describes: steps, and whom each restarts. Pure.

Each step is a whole configuration further, so carrying one out means: make the actors those of its configuration.
Nothing here shows a credential, so that steps can be printed into a job's log.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, SecretStr

from cluster.config import PipelineConfig, Table
from cluster.supervisor.plan import decoder_specs, monitor_specs, writer_specs
from cluster.supervisor.sharing import assign_homes

Action = Literal["add", "change", "remove"]


class Change(NamedTuple):
    """A key that differs, with both values as text; empty ones stand for a credential."""

    key: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.key} {self.before} -> {self.after}" if self.before or self.after else self.key


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a running pipeline.

    `part` is ``table``, ``sink`` or a section of the file, `which` the name of the table or sink. The tables in `drain`
    are to deliver what they hold before it, or it would not be delivered where it was meant to go. `restarts` names the
    actors that end and start again with other settings; actors of the same name and digest go on.
    """

    action: Action
    part: str
    which: str
    config: PipelineConfig
    changes: tuple[Change, ...] = ()
    drain: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = " ".join(filter(None, (self.action, self.part, self.which)))
        if self.changes:
            text += ": " + ", ".join(map(str, self.changes))
        if self.drain:
            text += f"; first delivers what {', '.join(self.drain)} hold{'s' * (len(self.drain) == 1)}"
        if self.restarts:
            text += f"; restarts {', '.join(self.restarts)}"
        return text

    def __repr__(self) -> str:
        return f"Step({self})"  # the configuration holds credentials


def difference(
    running: PipelineConfig, wanted: PipelineConfig, homes: Mapping[str, str] | None = None
) -> list[Step]:
    """The steps from `running` to `wanted`, in the order in which to take them; empty if there is nothing to do.

    `homes` says in which folders the tables have their spools; None: where new tables would.

    What is new comes first and what goes comes last, so that no table is without its sinks in between. The order of
    tables and sinks in the file means nothing. Raises ``ValueError`` if they are different pipelines.
    """
    if running.pipeline != wanted.pipeline:
        raise ValueError(f"{running.pipeline} and {wanted.pipeline} are two pipelines, not one that changed")
    return list(_Walk(running, assign_homes(running, homes or {})).to(wanted))


class _Walk:
    """Goes step by step and remembers how far it has come."""

    def __init__(self, start: PipelineConfig, homes: Mapping[str, str]) -> None:
        self._here = start
        self._homes = homes

    def to(self, wanted: PipelineConfig) -> Iterator[Step]:
        sinks = self._here.sinks
        for name in _without(wanted.sinks, sinks):
            yield self._step("add", "sink", name, sinks={**self._here.sinks, name: wanted.sinks[name]})
        for name in sinks:
            if name in wanted.sinks and sinks[name] != wanted.sinks[name]:
                changes = _changes(sinks[name], wanted.sinks[name])
                yield self._step(
                    "change", "sink", name, changes, sinks={**self._here.sinks, name: wanted.sinks[name]}
                )
        for part in ("source", "spool", "tuning", "decoders", "web"):
            before, after = getattr(self._here, part), getattr(wanted, part)
            if before != after:
                moved = part == "spool" and before.path != after.path
                drain = tuple(table.name for table in self._here.tables) if moved else ()
                yield self._step("change", part, "", _changes(before, after), drain, **{part: after})
        before, after = self._here.monitors_per_actor, wanted.monitors_per_actor
        if before != after:  # of tables that have no spool yet
            change = (Change("monitors_per_actor", str(before), str(after)),)
            yield self._step("change", "", "", change, monitors_per_actor=after)
        yield from self._tables(wanted)
        for name in _without(sinks, wanted.sinks):
            drain = tuple(t.name for t in self._here.tables if name in self._here.sinks_of(t))
            left = {other: sink for other, sink in self._here.sinks.items() if other != name}
            yield self._step("remove", "sink", name, drain=drain, sinks=left)

    def _tables(self, wanted: PipelineConfig) -> Iterator[Step]:
        before = {table.name: table for table in self._here.tables}
        after = {table.name: table for table in wanted.tables}
        for name in _without(after, before):
            yield self._step("add", "table", name, tables=(*self._here.tables, after[name]))
        for name, table in before.items():
            if name in after and table != after[name]:
                yield self._change_table(table, after[name])
        for name in _without(before, after):
            left = tuple(table for table in self._here.tables if table.name != name)
            yield self._step("remove", "table", name, drain=(name,), tables=left)

    def _change_table(self, before: Table, after: Table) -> Step:
        tables = tuple(after if table.name == after.name else table for table in self._here.tables)
        left = set(self._here.sinks_of(before)) - set(self._here.sinks_of(after))
        # A table with a standby is alone; of its two places either may hold what is not delivered, and one goes.
        name = after.name
        moves = not before.standby and after.standby and self._homes.get(name, name) != name
        drain = (name,) if left or moves or (before.standby and not after.standby) else ()
        return self._step("change", "table", after.name, _changes(before, after), drain, tables=tables)

    def _step(
        self,
        action: Action,
        part: str,
        which: str,
        changes: tuple[Change, ...] = (),
        drain: tuple[str, ...] = (),
        **update: Any,
    ) -> Step:
        before = _digests(self._here)
        self._here = self._here.model_copy(update=update)
        after = _digests(self._here)
        restarts = tuple(name for name in before if after.get(name, before[name]) != before[name])
        return Step(action, part, which, self._here, changes, drain, restarts)


def _without(these: Iterable[str], others: Container[str]) -> list[str]:
    return [name for name in these if name not in others]


def _digests(config: PipelineConfig) -> dict[str, str]:
    actors = {
        f"{spec.kind} {spec.which}": spec.digest for spec in (*monitor_specs(config), *writer_specs(config))
    }
    return {**actors, "the decoders": decoder_specs(config, 1)[0].digest}


def _changes(before: BaseModel | None, after: BaseModel | None, prefix: str = "") -> tuple[Change, ...]:
    """The keys of two sections of one kind that differ; one that is there in only one of them is named as a whole."""
    if before is None or after is None:
        return (Change(prefix.rstrip(".")),)
    found: list[Change] = []
    for key in type(before).model_fields:
        old, new = getattr(before, key), getattr(after, key)
        if old == new:
            continue
        if any(isinstance(value, BaseModel) for value in (old, new)):
            found += _changes(old, new, f"{prefix}{key}.")
        elif any(isinstance(value, (SecretStr, dict)) for value in (old, new)):  # a mapping is the user's own
            found.append(Change(prefix + key))
        else:
            found.append(Change(prefix + key, _text(old), _text(new)))
    return tuple(found)


def _text(value: Any) -> str:
    if value is None:
        return "absent"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
