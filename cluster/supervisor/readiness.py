"""What a pipeline lacks to be up. Pure."""

from __future__ import annotations

from typing import Any

#: An aborted table receives, though it does not deliver; a person has to look at that.
_RECEIVING = ("receiving", "done", "aborted")


def lacking(status: dict[str, Any]) -> list[str]:
    """Why a pipeline with this status is not up, one line each; empty when all of its actors run."""
    reasons = [] if status["state"] == "running" else [f"the pipeline is {status['state']}"]
    reasons += [_line("table", part) for part in status["tables"] if part["state"] not in _RECEIVING]
    reasons += [_line("sink", part) for part in status["sinks"] if part["state"] != "up"]
    decoders = status["decoders"]
    if decoders["running"] < decoders["wanted"]:
        reasons.append(f"{decoders['running']} of {decoders['wanted']} decoders run")
    return reasons


def _line(kind: str, part: dict[str, Any]) -> str:
    why = f": {part['problem']}" if part["problem"] else ""
    return f"{kind} {part['name']} is {part['state']}{why}"
