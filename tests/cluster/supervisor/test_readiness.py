"""What a pipeline lacks to be up."""

from __future__ import annotations

from cluster.supervisor.readiness import lacking
from tests.cluster.statuses import decoder, pipeline, sink, table


def test_nothing_when_all_run() -> None:
    assert lacking(pipeline()) == []
    assert lacking(pipeline(tables=[table("t", "aborted")])) == []


def test_everything_that_does_not_run_is_named() -> None:
    status = pipeline(
        state="draining",
        tables=[table("good"), table("t", "down", problem="killed"), table("u", "starting")],
        sinks=[sink("events", state="waiting")],
        decoders=[decoder("0"), decoder("1", state="down")],
    )
    assert lacking(status) == [
        "the pipeline is draining",
        "table t is down: killed",
        "table u is starting",
        "sink events is waiting",
        "1 of 2 decoders run",
    ]
