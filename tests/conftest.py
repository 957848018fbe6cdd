"""How Hypothesis works here."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does. Where nobody looks, runs should not differ.
settings.register_profile(
    "tablecast",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("tablecast")
