"""A block decoded in a process of its own: as by any decoder, or all of it rejected, whatever that process does."""

from __future__ import annotations

import signal

import msgpack
import pytest

from actors.block import Block
from actors.codec import isolated
from actors.codec.decoder import Decoder, all_or_nothing
from actors.codec.isolated import Limits, decode_isolated
from actors.errors import DecodeAborted
from actors.monitor.kinetica import block_schema
from protocols.kinetica.types import Column, TableType

TYPE = TableType((Column("id", "int"),))
SCHEMA = block_schema(TYPE.definition, TYPE.properties)


def block(*frames: bytes, format: str = "avro", schema: str = SCHEMA, payload: bytes | None = None) -> Block:
    return Block("t", 1, 7, len(frames), 99, format, schema, payload or msgpack.packb(list(frames)))


def test_it_gives_what_a_decoder_gives() -> None:
    mixed = block(b"\x02", b"", b"\x04")
    batch, expected = decode_isolated(mixed), Decoder().decode(mixed)
    assert batch.rows.to_pylist() == [{"id": 1}, {"id": 2}]
    assert batch.rows.schema == expected.rows.schema
    assert batch.rejects == expected.rejects
    assert batch.offsets.tolist() == [7, 9]


@pytest.mark.parametrize(
    ("limits", "why"),
    [(Limits(seconds=0), "it took too long"), (Limits(memory=32 << 20), "Error")],
    ids=["time", "memory"],
)
def test_beyond_its_limits_every_record_is_a_reject_with_its_frame(limits: Limits, why: str) -> None:
    batch = decode_isolated(block(b"\x02", b"\x04"), limits)
    assert [(reject.offset, reject.frame) for reject in batch.rejects] == [(7, b"\x02"), (8, b"\x04")]
    assert all("process of its own" in reject.reason and why in reject.reason for reject in batch.rejects)
    assert "\n" not in batch.rejects[0].reason
    assert (batch.rows.num_rows, len(batch.offsets)) == (0, 0)


def test_a_block_that_no_decoder_reads_is_kept_as_it_is() -> None:
    batch = decode_isolated(block(b"", b"", payload=b"\xc1"))
    assert [reject.frame for reject in batch.rejects] == [b"\xc1", b""]
    assert "DecodeFailed" not in batch.rejects[0].reason
    batch = decode_isolated(block(b"", format="xml", payload=b"<t/>"))
    assert [reject.frame for reject in batch.rejects] == [b"<t/>"]
    assert "unknown block format 'xml'" in batch.rejects[0].reason


@pytest.mark.parametrize(
    ("code", "errors", "why"),
    [
        (-signal.SIGSEGV, b"", "it died of SIGSEGV"),
        (-signal.SIGXCPU, b"", "it took too long"),
        (1, b"Traceback\n  at\nMemoryError\n\n", "MemoryError"),
        (3, b"", "its process ended with status 3"),
    ],
)
def test_the_end_of_the_process_in_words(code: int, errors: bytes, why: str) -> None:
    assert isolated._why(code, errors) == why


def test_all_or_nothing_names_the_first_reject() -> None:
    decoder = Decoder()
    sound = decoder.decode(block(b"\x02"))
    assert all_or_nothing(sound) is sound
    with pytest.raises(DecodeAborted, match="not a row of this table type") as caught:
        all_or_nothing(decoder.decode(block(b"\x02", b"", b"\x04", b"")))
    assert (caught.value.offset, caught.value.count) == (8, 2)
