"""What happened to one record of a running pipeline: from its monitor's spool and journal, and the writers' memory.

The spool, the accounts and the dead letters last; times and actors are remembered for recent blocks only. What is not
known any more is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from actors.block import TICKS_PER_SECOND, BlockId
from actors.codec.decoder import Decoder
from actors.errors import DecodeFailed
from actors.monitor.story import AtSink, Story
from actors.names import NAMESPACE, writer_name
from actors.writer.writer import Delivery
from cluster import control
from cluster.errors import NoSuchPipeline
from cluster.letters import Letters
from cluster.supervisor.plan import decoder_specs
from cluster.tail import events_of

#: Seconds allowed to a writer to look into its memory.
WRITER_TIMEOUT = 10.0


def story_of(name: str, origin: str) -> dict[str, Any]:
    """The story of the record `origin` of the running pipeline `name`; see :func:`told`.

    Raises :class:`NoSuchPipeline`, :class:`NoSuchPart`, and :class:`NotReady` when its monitor is away.
    """
    table, record = Letters(name).place(origin)
    config = control.running_config(name)
    if config is None:
        raise NoSuchPipeline(f"no pipeline named {name} is running")
    story: Story = control.ask_monitor(name, table, "story", record)
    deliveries = {each.sink: _deliveries(name, each.sink, record) for each in story.sinks}
    (spec,) = decoder_specs(config, 1)
    return told(name, table, story, deliveries, _value(name, story, Decoder(spec.settings)))


def _deliveries(name: str, sink: str, record: BlockId) -> list[Delivery] | None:
    """What the writer of `sink` remembers of the record; None if it does not answer."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        writer: Any = ray.get_actor(writer_name(name, sink), NAMESPACE)
        found: list[Delivery] = ray.get(writer.deliveries_of.remote(record), timeout=WRITER_TIMEOUT)
    except (ValueError, RayError, GetTimeoutError):
        return None
    return found


def _value(name: str, story: Story, decoder: Decoder) -> dict[str, Any] | None:
    """The record as it decodes now: its event, ``{"@rejected": why}``, empty if filtered; None: its bytes are gone."""
    if story.block is None:
        return None
    record = story.record
    origin = f"{name}/{record.feed}/{record.epoch}/{record.offset}"
    try:
        events = events_of(name, story.block, decoder)
    except DecodeFailed as error:
        return {"@rejected": str(error)}
    for event in events:
        values: dict[str, Any] = orjson.loads(event.line)
        if values["@origin"] == origin:
            return values
    return {}


def told(
    name: str,
    table: str,
    story: Story,
    deliveries: Mapping[str, list[Delivery] | None],
    value: dict[str, Any] | None,
) -> dict[str, Any]:
    """A story as JSON-able values.

    ``origin``; ``received``: when, in seconds since 1970, or null; ``block``: what it travelled in, or null; ``steps``
    in order of time, each with ``time``, ``what``, ``sink``, ``actor``, ``note``; ``sinks``, each with ``sink``,
    ``state``, ``note``; ``dead_letter``; ``value`` as of now; ``unknown``: what cannot be told, in sentences.
    """
    record, block, letter = story.record, story.block, story.letter
    monitor = f"monitor/{table}"
    ticks = None if letter is None else letter.time
    if block is not None:
        ticks = block.time + record.offset - block.offset
    received = None if ticks is None else ticks / TICKS_PER_SECOND
    steps = [
        _step(step.time, step.what, step.sink, step.actor or _by(step.what, step.sink, monitor), step.note)
        for step in story.steps
        if step.what != "received"
    ]
    if received is None:  # within the thousandth of a second in which its block began
        received = min((step.time for step in story.steps if step.what == "received"), default=None)
    if received is not None:
        gap = f"epoch begun after gap {story.gap.number}: {story.gap.cause}" if story.gap else ""
        steps.append(_step(received, "received", "", monitor, gap))
    if letter is not None:
        steps.append(_step(letter.failed / TICKS_PER_SECOND, "dead letter", "", monitor, letter.reason))
    for sink, found in deliveries.items():
        steps += [_step(each.time, "durable", sink, f"writer/{sink}", "") for each in found or ()]
    arrived = bool(steps) or _was_received(story)
    return {
        "origin": f"{name}/{record.feed}/{record.epoch}/{record.offset}",
        "received": received,
        "block": block
        and {
            "offset": block.offset,
            "records": block.count,
            "bytes": len(block.payload),
            "format": block.format,
        },
        "steps": sorted(steps, key=lambda step: (step["time"], _ORDER.get(step["what"], len(_ORDER)))),
        "sinks": [
            {"sink": each.sink, **_state(story, each, bool(arrived), deliveries.get(each.sink), value)}
            for each in story.sinks
        ],
        "dead_letter": letter and {"state": letter.state, "reason": letter.reason},
        "value": value or None,
        "unknown": _unknown(story, received, bool(arrived), deliveries),
    }


#: Steps at the same time are told in this order.
_ORDER = {
    what: number
    for number, what in enumerate(
        ("received", "committed", "dispatched", "decoded", "handed over", "durable", "acknowledged")
    )
}


def _step(at: float, what: str, sink: str, actor: str, note: str) -> dict[str, Any]:
    return {"time": at, "what": what, "sink": sink or None, "actor": actor or None, "note": note or None}


def _by(what: str, sink: str, monitor: str) -> str:
    """Who did something that does not name its actor."""
    if what in ("decoded", "not decoded", "aborted", "dispatched"):
        return ""  # a decoder: the step of its dispatch names it
    return f"writer/{sink}" if what in ("handed over", "acknowledged", "refused") else monitor


def _was_received(story: Story) -> bool | None:
    """Whether the record was received; None if that cannot be told any more."""
    if story.block is not None or story.letter is not None or story.steps:
        return True
    if story.record.epoch == story.end.epoch:
        return story.record.offset < story.end.next_offset
    return False if story.record.epoch > story.end.epoch else None


def _state(
    story: Story, at: AtSink, arrived: bool, deliveries: list[Delivery] | None, value: dict[str, Any] | None
) -> dict[str, Any]:
    """How the record stands at a sink, in a word and in a sentence."""
    letter, lane, account = story.letter, at.lane, at.account
    if not arrived:
        return _said("unknown" if _was_received(story) is None else "not received")
    if at.refused and letter is not None:
        return _said("dead letter", f"{letter.reason}; {letter.state}")
    if at.passed:
        return _passed(story, at, deliveries, value)
    if at.again:
        return _said("delivered", "and to be delivered again, as the sink was rewound")
    if letter is None and story.block is None:
        return _said(
            "dropped", "it left the spool undelivered, as spool.when_full or the end of the sink said"
        )
    if story.frozen:
        return _said("waiting", f"the table is frozen: {story.frozen}")
    if story.held:
        return _said("waiting", "the type of the record is not proven yet")
    if lane is not None and lane.aborted is not None:
        return _said("waiting", f"record {lane.aborted.offset} stops the table: {lane.aborted.reason}")
    if lane is not None and lane.in_flight and _dispatched(story, at.sink):
        return _said("on its way")
    if lane is not None and lane.paused:
        return _said("waiting", "paused")
    ahead = f"{account.pending:,} records are still to be sent" if account is not None else ""
    return _said("waiting", "; ".join(filter(None, (lane.problem if lane else None, ahead))))


def _passed(
    story: Story, at: AtSink, deliveries: list[Delivery] | None, value: dict[str, Any] | None
) -> dict[str, Any]:
    """The sink's cursor is behind the record: the sink has it, unless it was left out on the way."""
    if story.letter is not None and story.letter.state == "done":
        return _said("delivered", "after a replay of its dead letter")
    account = at.account
    if value == {}:
        return _said("filtered", "by the table's transform, as it stands now")
    acknowledged = [step for step in story.steps if step.what == "acknowledged" and step.sink == at.sink]
    some_filtered = not acknowledged or any("filtered" in step.note for step in acknowledged)
    if account is not None and account.filtered and value is None and some_filtered:
        return _said("delivered or filtered", "some of its feed was filtered; which is not kept")
    if account is not None and account.dropped and not acknowledged and not deliveries:
        return _said("delivered or dropped", "some of its feed was dropped; which is not kept")
    return _said("delivered")


def _said(state: str, note: str = "") -> dict[str, Any]:
    return {"state": state, "note": note or None}


def _dispatched(story: Story, sink: str) -> bool:
    """Whether the block was sent to `sink` and nothing has been heard of it since."""
    last = [step.what for step in story.steps if step.sink == sink]
    return bool(last) and last[-1] == "dispatched"


def _unknown(
    story: Story,
    received: float | None,
    arrived: bool,
    deliveries: Mapping[str, list[Delivery] | None],
) -> list[str]:
    """What cannot be told, in sentences."""
    record, end, missing = story.record, story.end, []
    if not arrived:
        if _was_received(story) is None:
            missing.append(
                f"whether epoch {record.epoch} had an offset {record.offset}: the feed is at epoch {end.epoch}"
            )
        else:
            place = f"epoch {end.epoch}, offset {end.next_offset}" if end.epoch else "its very beginning"
            missing.append(f"it may come: {record.feed} stands at {place}")
        return missing
    since = _clock(story.since)
    if not any(step.what == "committed" for step in story.steps):
        missing.append(
            f"who decoded and delivered it, and when: the monitor's journal goes back to {since} and does not have its"
            " block"
        )
    if received is None:
        missing.append(
            "when it was received: every sink has it, and the spool keeps it no more (spool.retain)"
        )
    silent = [sink for sink, found in deliveries.items() if found is None]
    if silent:
        missing.append(f"what the writers of {', '.join(silent)} remember: they do not answer")
    return missing


def _clock(moment: float) -> str:
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{whole}.{int(moment * 1000) % 1000:03}"


def lines(story: Mapping[str, Any]) -> Iterable[str]:
    """What :func:`told` made, for people."""
    yield story["origin"]
    if (block := story["block"]) is not None:
        last = block["offset"] + block["records"] - 1
        yield (
            f"  in the block of offsets {block['offset']} to {last}: {block['bytes']:,} bytes of {block['format']},"
            " still in the spool"
        )
    for step in story["steps"]:
        to = f" for {step['sink']}" if step["sink"] else ""
        by = f", {step['actor']}" if step["actor"] else ""
        note = f" ({step['note']})" if step["note"] else ""
        yield f"  {_clock(step['time'])}  {step['what']}{to}{by}{note}"
    for sink in story["sinks"]:
        yield f"  {sink['sink']}: {sink['state']}" + (f", {sink['note']}" if sink["note"] else "")
    if story["value"] is not None:
        yield f"  decodes now to {orjson.dumps(story['value']).decode()}"
    for missing in story["unknown"]:
        yield f"  not known: {missing}"
