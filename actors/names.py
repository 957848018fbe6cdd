"""Names of actors on the cluster, all in one Ray namespace.

A name is ``pipeline/kind/which``; whoever needs an actor finds it by name, so that nobody has to hand handles on
after a restart.
"""

from __future__ import annotations

#: Ray namespace of every Tablecast actor.
NAMESPACE = "tablecast"

#: What follows a table's name in the names of its other feeds; inserts are the feed of the bare name.
FEED_SUFFIXES = (".updates", ".deletes", ".changes")


def feeds_of(table: str) -> tuple[str, ...]:
    """The names that the feeds of `table` can have."""
    return (table, *(table + suffix for suffix in FEED_SUFFIXES))


#: What follows a table's name in names of its second place; no table's name has it.
STANDBY_SUFFIX = "~standby"

_SHARED = "shared~"


def shared_home(number: int) -> str:
    """The folder of the spool that a group of small tables shares; no table's name."""
    return f"{_SHARED}{number}"


def is_shared_home(home: str) -> bool:
    return home.startswith(_SHARED)


def supervisor_name(pipeline: str) -> str:
    return f"{pipeline}/supervisor"


def monitor_name(pipeline: str, home: str) -> str:
    """The actor of the monitors whose spool is in the folder `home`: a table's own, or one that small tables share."""
    return f"{pipeline}/monitor/{home}"


def standby_name(pipeline: str, table: str) -> str:
    """The second place of a table with a standby; which of the two is its monitor changes."""
    return monitor_name(pipeline, table) + STANDBY_SUFFIX


def drainer_name(pipeline: str, host: str, home: str) -> str:
    """The actor that delivers what is left in the folder `home` of `host`."""
    return f"{pipeline}/drainer/{host}/{home}"


def decoder_name(pipeline: str, number: int) -> str:
    return f"{pipeline}/decoder/{number}"


def writer_name(pipeline: str, sink: str) -> str:
    return f"{pipeline}/writer/{sink}"


#: The names of feeds of events that somebody put begin so; no table's can.
_PUT = "put:"


def put_feed(caller: str) -> str:
    return _PUT + caller


def is_put_feed(feed: str) -> bool:
    return feed.startswith(_PUT)
