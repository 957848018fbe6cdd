"""Reads a pipeline file: a :class:`PipelineConfig`, or one :class:`ConfigError` with every fault.

Nothing here reaches the network: that an endpoint answers is for ``tablecast check`` to find out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from cluster.config.contradictions import contradictions
from cluster.config.errors import describe
from cluster.config.pipeline import PipelineConfig
from cluster.config.yaml_source import read, show_path


class ConfigError(ValueError):
    """A pipeline file cannot be used; `faults` lists ``FILE:LINE: key.path: what is wrong; what to do``."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(list(faults))
        self.faults = list(faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


def load(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> PipelineConfig:
    """Read the pipeline file at `path`. Raises :class:`ConfigError`, also if the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{path}:1: not UTF-8 text; save the file as UTF-8"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ConfigError([f"{path}:1: cannot be read ({reason}); check the path"]) from None
    return parse(text, str(path), env)


def parse(text: str, name: str, env: Mapping[str, str] = os.environ) -> PipelineConfig:
    """Read the pipeline file `text`; `name` is its path, for messages and as the base of relative paths.

    Raises :class:`ConfigError` with every fault of the file, in the order of lines.
    """
    document = read(text, env)
    if document.data is None and document.faults:
        raise ConfigError([f"{name}:{fault.line}: {fault.text}" for fault in document.faults])
    data = {"spool": {}, **document.data} if isinstance(document.data, dict) else document.data
    config = None
    silent = {fault.path for fault in document.faults}
    try:
        config = PipelineConfig.model_validate(data, context={"folder": Path(name).parent})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = document.known(detail["loc"]) if detail["type"] != "missing" else detail["loc"]
            if detail["type"] == "value_error" and not path:
                continue  # one of the contradictions, all of which follow
            if path not in silent or detail["type"] == "extra_forbidden":
                document.fault(path, describe(detail, PipelineConfig))
    for path, message in contradictions(data):
        if path not in silent:
            document.fault(path, message)
    if config is None or document.faults:
        lines = sorted({(fault.line, show_path(fault.path), fault.text) for fault in document.faults})
        raise ConfigError(
            [f"{name}:{line}: {path + ': ' if path else ''}{fault}" for line, path, fault in lines]
        )
    return config
