"""What runs on Ray: monitors, decoders and writers, each a plain class and a thin actor around it."""

import os

# Read once, when polars is imported: an actor owns one core, and logs take no Rust backtraces.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("RUST_BACKTRACE", "0")
