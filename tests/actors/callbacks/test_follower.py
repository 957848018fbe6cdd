"""What a follower hands out when its stream ends, against streams that end on order."""

from __future__ import annotations

import logging
import threading
from typing import Any

from actors.callbacks.callback import Callback
from actors.callbacks.caller import Caller
from actors.callbacks.follower import Follower
from actors.monitor.kinetica import block_schema
from actors.monitor.source import Described, Received, SourceLost, TableGone
from protocols.kinetica.types import Column, TableType

DEADLINE = 20.0
Kinds = Callback.Type
TYPE = TableType((Column("id", "int"),))
DESCRIBED = Described("1", block_schema(TYPE.definition, TYPE.properties))


class LostStream:
    """Gives one row, and is lost before anybody hears of what type it is."""

    described = DESCRIBED

    def __init__(self) -> None:
        self._given = False
        self._lost = threading.Event()

    def receive(self, timeout: float) -> list[Received]:
        if self._given:
            self._lost.set()
            raise SourceLost("the connection was lost")
        self._given = True
        return [Received("insert", [b"\x02"])]

    def describe(self) -> Described:
        self._lost.wait(DEADLINE)
        raise SourceLost("the connection was lost")

    check = describe

    def wake(self) -> None: ...

    def close(self) -> None: ...


def test_rows_held_are_handed_out_when_the_table_turns_out_to_be_gone() -> None:
    seen: list[Any] = []
    log = logging.Logger("test.follower", logging.CRITICAL)
    callbacks = [Callback(kind, seen.append) for kind in (Kinds.INSERT_DECODED, Kinds.TABLE_DROPPED)]

    def reopen() -> Any:
        raise TableGone("no such table")

    stream: Any = LostStream()
    Follower("t", stream, reopen, Caller("t", callbacks, "official", log), 1.0, log).run()
    assert seen == [{"id": 1}, "Table t does not exist anymore: no such table"]
