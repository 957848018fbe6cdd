"""Actors of every kind are killed at random while rows flow: lost and doubled, by the rows themselves and by accounts.

``scripts/soak chaos [--seconds 60] [--seed N]`` is the test of ``tests/e2e/test_chaos.py`` for longer.
"""

from __future__ import annotations

import argparse
import os
import random
import sys

import pytest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    arguments = parser.parse_args()
    os.environ["SOAK_SECONDS"], os.environ["SOAK_SEED"] = str(arguments.seconds), str(arguments.seed)
    sys.exit(pytest.main(["-s", "tests/e2e/test_chaos.py"]))


if __name__ == "__main__":
    main()
