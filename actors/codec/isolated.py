"""Decodes a block in a process of its own, within limits of time and memory: for blocks that kill decoders.

Run with ``-m``, this module is that process: a pickled block and its transforms on its standard input, a pickled batch
or :class:`DecodeFailed` on its standard output. Whatever kills it, the caller lives.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa

from actors.batch import Batch, Rejected
from actors.block import LISTED, Block
from actors.codec.decoder import Decoder
from actors.errors import DecodeFailed


@dataclass(frozen=True, slots=True)
class Limits:
    """What one block may take: `seconds` of time, as many of CPU, and bytes of address space.

    A full block of a megabyte takes well under a second and 400 MB, libraries included.
    """

    seconds: int = 20
    memory: int = 4 << 30


_ENDS = {signal.SIGALRM: "it took too long", signal.SIGXCPU: "it took too long"}


def decode_isolated(
    block: Block, limits: Limits = Limits(), transforms: Mapping[str, Mapping[str, Any]] | None = None
) -> Batch:
    """Decode and transform `block` within `limits`; if that fails, its records are rejects with the reason."""
    command = [sys.executable, "-m", "actors.codec.isolated", str(limits.seconds), str(limits.memory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            input=pickle.dumps((block, transforms)),
            capture_output=True,
            env=environment,
            timeout=limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _rejected(block, "it took too long")
    except OSError as error:
        return _rejected(block, f"no process for it: {error.strerror}")
    if done.returncode:
        return _rejected(block, _why(done.returncode, done.stderr))
    result: Batch | DecodeFailed = pickle.loads(done.stdout)
    return _rejected(block, str(result)) if isinstance(result, DecodeFailed) else result


def _why(code: int, errors: bytes) -> str:
    if code < 0:
        number = signal.Signals(-code)
        return _ENDS.get(number, f"it died of {number.name}")
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with status {code}"


def _rejected(block: Block, why: str) -> Batch:
    reason = f"the decoder failed on its block, also in a process of its own: {why}"
    frames = _frames(block)
    rejects = tuple(Rejected(block.offset + i, reason, frame) for i, frame in enumerate(frames))
    rows = pa.RecordBatch.from_pylist([], schema=pa.schema([]))
    return Batch(block.id, block.count, block.time, rows, np.empty(0, np.int64), rejects)


def _frames(block: Block) -> list[bytes]:
    """The frames of `block`; where the payload is not a list of them, all of it as the first."""
    try:
        frames = msgpack.unpackb(block.payload) if block.format in LISTED else None
    except ValueError:
        frames = None
    if isinstance(frames, list) and len(frames) == block.count and all(type(f) is bytes for f in frames):
        return frames
    return [block.payload] + [b""] * (block.count - 1)


def _main(seconds: int, memory: int) -> None:
    # An alarm as well, should the caller die first.
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the answer
    result: Batch | DecodeFailed
    try:
        block, transforms = pickle.load(sys.stdin.buffer)
        result = Decoder(transforms).decode(block)
    except DecodeFailed as error:
        result = error
    with output:
        pickle.dump(result, output)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
