"""Names of actors on the cluster, all in one Ray namespace.

A name is ``pipeline/kind/which``; whoever needs an actor finds it by name, so that nobody has to hand handles on
after a restart.
"""

from __future__ import annotations

#: Ray namespace of every Tablecast actor.
NAMESPACE = "tablecast"


def supervisor_name(pipeline: str) -> str:
    return f"{pipeline}/supervisor"


def monitor_name(pipeline: str, table: str) -> str:
    return f"{pipeline}/monitor/{table}"


def decoder_name(pipeline: str, number: int) -> str:
    return f"{pipeline}/decoder/{number}"


def writer_name(pipeline: str, sink: str) -> str:
    return f"{pipeline}/writer/{sink}"
