"""The story of a record: what is known of it, and honesty about what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from actors.block import TICKS_PER_SECOND, Block, BlockId
from actors.monitor.accounts import Account
from actors.monitor.gaplog import Gap
from actors.monitor.journal import Step
from actors.monitor.lane_report import LaneReport
from actors.monitor.letters import DeadLetter
from actors.monitor.spool import FeedEnd
from actors.monitor.story import AtSink, Story
from actors.writer.writer import Delivery
from cluster.story import lines, told

RECORD = BlockId("t", 5, 12)
BLOCK = Block("t", 5, 10, 10, 9 * TICKS_PER_SECOND, "avro", "{}", b"abc")
ACCOUNT = Account("a", "t", 100, 90, 0, 0, 0, 10, 5, 0)
LANE = LaneReport("t", "a", "open", None, 10, 5, 0)
AT = AtSink("a", passed=True, refused=False, again=False, lane=LANE, account=ACCOUNT)
LETTER = DeadLetter(
    "t", 5, 12, 9 * TICKS_PER_SECOND, "avro", "{}", "bad", b"", 11 * TICKS_PER_SECOND, "waiting"
)
STEPS = (
    Step(9.0, "received"),
    Step(10.0, "committed", note="with the block of offsets 10 to 19"),
    Step(11.0, "dispatched", "a", "decoder/1"),
    Step(12.0, "decoded", "a"),
    Step(13.0, "acknowledged", "a"),
)
STORY = Story(RECORD, None, FeedEnd(5, 200, 0), None, None, False, None, (AT,), (), 8.0, "h", 1)


def tell(
    value: dict[str, Any] | None = None, deliveries: list[Delivery] | None = None, **changes: Any
) -> dict[str, Any]:
    made = told("p", "t", replace(STORY, **changes), {"a": [] if deliveries is None else deliveries}, value)
    assert json.loads(json.dumps(made)) == made
    assert next(iter(lines(made))) == "p/t/5/12"
    return made


def state(value: dict[str, Any] | None = None, *, at: AtSink = AT, **changes: Any) -> tuple[str, str | None]:
    (sink,) = tell(value, sinks=(at,), **changes)["sinks"]
    return sink["state"], sink["note"]


def test_step_by_step_with_times_and_actors() -> None:
    made = tell(steps=STEPS, deliveries=[Delivery(1, BlockId("t", 5, 10), 10, 12.5)])
    assert [(step["time"], step["what"], step["actor"]) for step in made["steps"]] == [
        (9.0, "received", "monitor/t"),
        (10.0, "committed", "monitor/t"),
        (11.0, "dispatched", "decoder/1"),
        (12.0, "decoded", None),
        (12.5, "durable", "writer/a"),
        (13.0, "acknowledged", "writer/a"),
    ]
    assert (made["received"], made["unknown"]) == (9.0, [])
    assert [(sink["sink"], sink["state"]) for sink in made["sinks"]] == [("a", "delivered")]


def test_what_the_spool_knows_when_the_journal_has_forgotten() -> None:
    made = tell({"@origin": "p/t/5/12", "id": 3}, block=BLOCK)
    assert made["received"] == pytest.approx(9.0)
    assert made["block"] == {"offset": 10, "records": 10, "bytes": 3, "format": "avro"}
    assert "still in the spool" in "\n".join(lines(made))
    (missing,) = made["unknown"]
    assert missing.startswith(
        "who decoded and delivered it, and when: the monitor's journal goes back to 1970-"
    )


def test_delivered_and_gone_is_all_that_may_be_left() -> None:
    made = tell()
    assert made["sinks"][0]["state"] == "delivered"
    assert made["received"] is None
    assert any("the spool keeps it no more" in missing for missing in made["unknown"])


def test_what_has_not_come_and_what_nobody_can_know() -> None:
    not_yet = tell(end=FeedEnd(5, 12, 0))
    assert not_yet["sinks"][0]["state"] == "not received"
    assert not_yet["unknown"] == ["it may come: t stands at epoch 5, offset 12"]
    assert tell(end=FeedEnd(4, 99, 0))["sinks"][0]["state"] == "not received"
    older = tell(end=FeedEnd(6, 0, 0))
    assert older["sinks"][0]["state"] == "unknown"
    assert older["unknown"] == ["whether epoch 5 had an offset 12: the feed is at epoch 6"]
    assert tell(end=FeedEnd())["unknown"] == ["it may come: t stands at its very beginning"]


def test_the_gap_before_its_epoch_is_named() -> None:
    gap = Gap(3, "the monitor was not running", 1.0, 5.0, "healed", 0, 0, "")
    (first, *_) = tell(block=BLOCK, gap=gap)["steps"]
    assert first["note"] == "epoch begun after gap 3: the monitor was not running"


WAITING = replace(AT, passed=False)
AGAIN = "and to be delivered again, as the sink was rewound"


@pytest.mark.parametrize(
    ("at", "changes", "expected"),
    [
        (replace(AT, refused=True), {"letter": LETTER}, ("dead letter", "bad; waiting")),
        (AT, {"letter": replace(LETTER, state="done")}, ("delivered", "after a replay of its dead letter")),
        (WAITING, {"block": BLOCK}, ("waiting", "10 records are still to be sent")),
        (replace(WAITING, lane=replace(LANE, paused=True)), {"block": BLOCK}, ("waiting", "paused")),
        (WAITING, {"block": BLOCK, "held": True}, ("waiting", "the type of the record is not proven yet")),
        (WAITING, {"block": BLOCK, "frozen": "altered"}, ("waiting", "the table is frozen: altered")),
        (replace(WAITING, lane=replace(LANE, in_flight=1)), {"block": BLOCK, "steps": STEPS[:3]}, ("on its way", None)),
        (replace(WAITING, again=True), {"block": BLOCK}, ("delivered", AGAIN)),
    ],
)  # fmt: skip
def test_how_it_stands_at_a_sink(at: AtSink, changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert state({"id": 1}, at=at, **changes) == expected


def test_what_left_the_spool_undelivered_was_dropped() -> None:
    assert state(at=WAITING)[0] == "dropped"
    some_dropped = replace(AT, account=replace(ACCOUNT, dropped=4))
    assert state(at=some_dropped)[0] == "delivered or dropped"
    assert state(at=some_dropped, steps=STEPS)[0] == "delivered"


def test_filtered_is_said_where_it_is_known() -> None:
    some_filtered = replace(AT, account=replace(ACCOUNT, filtered=4))
    assert state({}, at=some_filtered, block=BLOCK)[0] == "filtered"
    assert state({"id": 1}, at=some_filtered, block=BLOCK)[0] == "delivered"
    assert state(at=some_filtered)[0] == "delivered or filtered"
    assert state(at=some_filtered, steps=STEPS)[0] == "delivered"
    filtered_some = (*STEPS[:-1], STEPS[-1]._replace(note="4 filtered"))
    assert state(at=some_filtered, steps=filtered_some)[0] == "delivered or filtered"
