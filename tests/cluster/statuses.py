"""Statuses as pipelines give them, made by hand; each is what the models of the schema allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from cluster.watch.status_schema import PipelineStatus

#: The schema as published.
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())


def check_status(status: dict[str, Any]) -> None:
    """Validate the status of a running pipeline against the published schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(status)))


def actor(name: str, state: str = "up", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "pid": 7,
        "problem": None,
        "restarts": 0,
        "recovery_seconds": [],
        "records_per_second": 0.0,
        **more,
    }


def lane(feed: str, sink: str, pending: int = 0, lag: float = 0.0, delivered: int = 0) -> dict[str, Any]:
    account = dict.fromkeys(
        ("filtered", "dead_letters", "dropped", "waiting", "bytes", "again", "pending", "unexplained"), 0
    )
    return {
        "feed": feed,
        "sink": sink,
        "state": "open",
        "problem": None,
        "pending_records": pending,
        "pending_bytes": 10 * pending,
        "lag_seconds": lag,
        "in_flight": 0,
        "aborted": None,
        "account": {"sink": sink, "feed": feed, "received": delivered, "delivered": delivered, **account},
    }


def table(name: str, state: str = "receiving", **more: Any) -> dict[str, Any]:
    lanes = more.pop("lanes", [lane(name, "events")])
    return {
        **actor(name, state),
        "actor": f"p/monitor/{name}",
        "host": "a",
        "standby": None,
        "aborted": None,
        "epoch": 1,
        "received": 0,
        "last_received": None,
        "reconnects": 0,
        "pending": max((each["pending_records"] for each in lanes), default=0),
        "lag_seconds": max((each["lag_seconds"] for each in lanes), default=0.0),
        "spool_bytes": 0,
        "dead_letters": 0,
        "resident_bytes": 1000,
        "source": None,
        "lost": 0,
        "accounts": [],
        "gaps": {"counts": {}, "latest": []},
        "catch_up": None,
        "lanes": lanes,
        **more,
    }


def decoder(name: str, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("blocks", "records", "bytes", "rejects", "filtered"), 0)
    return {**actor(name), "host": "a", **counts, "busy_seconds": 0.0, **more}


def sink(name: str, **more: Any) -> dict[str, Any]:
    counts = (
        "records",
        "requests",
        "retries",
        "refused",
        "waiting",
        "buffered_bytes",
        "callers",
        "in_flight",
    )
    facts = ("problem_since", "last_error", "last_error_at")
    return {
        **actor(name),
        "kind": "kronos",
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(facts),
        "circuit": "closed",
        "concurrency": 8,
        **more,
    }


def pipeline(**more: Any) -> dict[str, Any]:
    decoders = more.pop("decoders", [decoder("0")])
    made = {
        "pipeline": "p",
        "state": "running",
        "time": 1000.0,
        "supervisor_pid": 1,
        "supervisor_since": 1.0,
        "restarts": 0,
        "adopted": 0,
        "alerts": [],
        "web": {"url": None, "problem": None},
        "hosts": [],
        "tables": [table("t")],
        "spools": [],
        "decoders": {
            "wanted": len(decoders),
            "running": sum(each["state"] == "up" for each in decoders),
            "min": 1,
            "max": 4,
            "mode": "automatic",
            "busy": 0.5,
            "backlog_bytes": 0,
            "backlog_seconds": 0.0,
            "lag_seconds": None,
            "bytes_per_second": 0.0,
            "verdict": "enough",
            "steps": [{"time": 900.0, "from": 1, "to": 2, "by": "load", "reason": "busy"}],
            "members": decoders,
        },
        "sinks": [sink("events")],
        **more,
    }
    PipelineStatus.model_validate(made)
    return made
