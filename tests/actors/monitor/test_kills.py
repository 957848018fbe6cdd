"""The short form of ``scripts/soak kills``."""

from __future__ import annotations

from pathlib import Path

from tests.soak import kills


def test_killed_at_random_moments(tmp_path: Path) -> None:
    kills.run(tmp_path, rounds=10, seed=0)
