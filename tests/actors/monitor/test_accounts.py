"""What became of records, against a model that follows each one."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.batch import Rejected
from actors.block import Block
from actors.monitor import accounts
from actors.monitor.accounts import Account, Outcome
from actors.monitor.spool import Position, Spool

SINKS = ("a", "b", "c")


def block(offset: int, count: int, epoch: int = 1, feed: str = "t") -> Block:
    return Block(feed, epoch, offset, count, offset, "avro", "{}", b"x" * count)


def counts(account: Account) -> dict[str, int]:
    names = ("delivered", "filtered", "dead_letters", "dropped", "pending")
    return {name: value for name in names if (value := getattr(account, name))}


class AccountsAgainstRecords(RuleBasedStateMachine):
    """Every record's fate at every sink is known; the accounts say the same, across closing and opening."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.spool = Spool(self.directory)
        self.sinks: tuple[str, ...] = ("a",)
        self.spool.open_accounts(self.sinks)
        self.blocks: list[Block] = []
        self.epoch = 1
        #: Per sink, of each record (epoch, offset), what became of it.
        self.fates: dict[str, dict[tuple[int, int], str]] = {sink: {} for sink in SINKS}
        self.cursors = dict.fromkeys(SINKS, Position())
        #: Letters that were delivered. They do not come back, whoever rejects them after that.
        self.done: set[tuple[int, int]] = set()
        #: What was deleted while the sink was not used.
        self.missed: dict[str, list[tuple[int, int]]] = {sink: [] for sink in SINKS}

    def records(self, each: Block) -> list[tuple[int, int]]:
        return [(each.epoch, n) for n in range(each.offset, each.end)]

    @rule(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3), epoch=st.booleans())
    def append(self, counts: list[int], epoch: bool) -> None:
        self.epoch += epoch
        end = self.spool.end("t")
        at = end.next_offset if end.epoch == self.epoch else 0
        for count in counts:
            new = block(at, count, self.epoch)
            at = new.end
            self.spool.append([new])
            self.blocks.append(new)
            for sink in self.sinks:
                self.fates[sink].update(dict.fromkeys(self.records(new), "pending"))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        sink = data.draw(st.sampled_from(self.sinks))
        passed = [b for b in self.blocks if (b.epoch, b.offset) >= self.cursors[sink]]
        passed = passed[: data.draw(st.integers(0, len(passed)))]
        if not passed:
            return
        outcomes = []
        for each in passed:
            fates = data.draw(st.lists(st.sampled_from(["delivered", "dead_letters", "filtered"]),
                                       min_size=each.count, max_size=each.count))  # fmt: skip
            rejects = [n for n, fate in enumerate(fates, each.offset) if fate == "dead_letters"]
            filtered = fates.count("filtered")
            outcomes.append(
                Outcome(sink, each.id, 0, tuple(Rejected(n, "r", b"f") for n in rejects), filtered)
            )
            for record, fate in zip(self.records(each), fates, strict=True):
                if self.fates[sink][record] == "pending":  # what is sent again was counted
                    self.fates[sink][record] = fate
        self.cursors[sink] = Position(passed[-1].epoch, passed[-1].end)
        self.spool.advance({(sink, "t"): self.cursors[sink]}, {}, outcomes)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        sink = data.draw(st.sampled_from(self.sinks))
        to = data.draw(st.sampled_from(self.blocks))
        self.cursors[sink] = min(self.cursors[sink], Position(to.epoch, to.offset))
        self.spool.advance({(sink, "t"): self.cursors[sink]}, {})

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def drop_the_oldest(self, data: st.DataObject) -> None:
        gone = self.blocks[: data.draw(st.integers(1, len(self.blocks)))]
        with self.spool.transaction() as db:
            for each in gone:
                db.execute("DELETE FROM block WHERE (epoch, offset) = (?, ?)", each.id[1:])
                for sink in self.sinks:
                    if each.id[1:] >= self.cursors[sink]:
                        accounts.drop(db, sink, "t", Position(*each.id[1:]), each.count, each.count)
        for record in (record for each in gone for record in self.records(each)):
            for sink in self.sinks:
                if self.fates[sink][record] == "pending":
                    self.fates[sink][record] = "dropped"
        self.forget(len(gone))

    @precondition(lambda self: self.blocks)
    @rule()
    def delete_what_all_have(self) -> None:
        behind = min(self.cursors[sink] for sink in self.sinks)
        self.spool.advance({}, {"t": behind})
        self.forget(sum((b.epoch, b.offset) < behind for b in self.blocks))

    def forget(self, count: int) -> None:
        """The first `count` blocks are gone: an unused sink will never get them."""
        for each in self.blocks[:count]:
            for sink in set(SINKS) - set(self.sinks):
                for record in self.records(each):
                    if self.fates[sink].get(record) == "pending":
                        self.fates[sink][record] = "dropped"
                        self.missed[sink].append(record)
        del self.blocks[:count]

    @rule()
    def replay(self) -> None:
        begun = self.spool.letters.begin()
        if begun:
            ((run, _),) = begun.values()
            assert self.spool.letters.settle("t", run, Position(1 << 60, 0), [])
        dead = {r for fates in self.fates.values() for r, fate in fates.items() if fate == "dead_letters"}
        for fates in self.fates.values():
            fates.update({r: "delivered" for r in dead - self.done if fates.get(r) == "dead_letters"})
        self.done |= dead

    @rule(sinks=st.sampled_from([("a",), ("a", "b"), ("b", "c"), ("c",)]))
    def other_sinks(self, sinks: tuple[str, ...]) -> None:
        self.spool.close()
        self.spool = Spool(self.directory)
        self.spool.open_accounts(sinks)
        for sink in set(sinks) - set(self.sinks):
            # One that was away gets what the spool still holds behind its cursor.
            behind = [b for b in self.blocks if (b.epoch, b.offset) >= self.cursors[sink]]
            new = [
                record for each in behind for record in self.records(each) if record not in self.fates[sink]
            ]
            self.fates[sink].update(dict.fromkeys(new, "pending"))
            for record in self.missed[sink][: len(new)]:
                del self.fates[sink][record]
            self.missed[sink] = []
        self.sinks = sinks

    @invariant()
    def says_the_same(self) -> None:
        found = {account.sink: account for account in self.spool.accounts() if account.feed == "t"}
        audited = {account.sink: account for account in self.spool.audit()}
        assert audited == found
        for sink in self.sinks if self.spool.feeds() else ():
            assert counts(found[sink]) == dict(Counter(self.fates[sink].values()))
            assert found[sink].unexplained == 0
            behind = [b for b in self.blocks if (b.epoch, b.offset) >= self.cursors[sink]]
            assert found[sink].waiting == found[sink].bytes == sum(b.count for b in behind)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.directory)


AccountsAgainstRecords.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_accounts_against_records = AccountsAgainstRecords.TestCase


def test_what_vanishes_without_a_trace_is_unexplained(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open_accounts(["a"])
    spool.append([block(0, 10), block(10, 10)])
    with spool.transaction() as db:
        db.execute("DELETE FROM block WHERE offset = 0")
    (account,) = spool.audit()
    assert (account.received, account.pending, account.unexplained) == (20, 10, 10)
    spool.close()


def test_rows_set_aside_are_dead_letters_of_every_sink(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open_accounts(["a", "b"])
    spool.append([block(0, 10)])
    spool.hold("t", Position(1, 0))
    rejects = [(block(0, 10), Rejected(3, "ambiguous", b"f")), (block(0, 10), Rejected(4, "ambiguous", b"f"))]
    news = block(0, 1, feed="t.changes")
    spool.settle("t", [block(0, 3), block(5, 5)], rejects, Position(1, 10), None, ("s", None), news)
    for audit in (False, True):
        held = [(x.sink, x.feed, x.received, x.dead_letters, x.pending, x.bytes, x.unexplained)
                for x in (spool.audit() if audit else spool.accounts())]  # fmt: skip
        assert sorted(held) == [
            (s, f, n, d, n - d, n - d, 0) for s in "ab" for f, n, d in (("t", 10, 2), ("t.changes", 1, 0))
        ]
    spool.close()


def test_a_spool_without_accounts_begins_with_what_it_holds(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0, 10), block(10, 10)])
    spool.advance({("a", "t"): Position(1, 10)}, {})
    spool.open_accounts(["a", "b"])
    assert [(x.sink, x.received, x.pending) for x in spool.accounts()] == [("a", 10, 10), ("b", 20, 20)]
    spool.close()
