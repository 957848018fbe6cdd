"""The conservation report from what monitors say: what counts as lost, and what explains it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from cluster.verify import show, summary, table_report

SOURCE = {"baseline": 5, "inserted": 100, "updated": 0, "deleted": 1, "deletes_known": True, "expected": 104}
ACCOUNT = {"sink": "a", "feed": "t", "received": 100, "delivered": 90, "filtered": 1, "dead_letters": 2}
ACCOUNT |= {"dropped": 3, "pending": 4, "unexplained": 0}


def gap(missing: int | None, state: str = "unhealed") -> dict[str, Any]:
    times = {"began": 1.0, "ended": 2.0}
    return {
        "number": 1, "cause": "c", "state": state, "recovered": 7, "missing": missing, "note": "n", **times
    }  # fmt: skip


def report(shortfall: int | None, gaps: list[dict[str, Any]], **account: int) -> dict[str, Any]:
    source = {**SOURCE, "size": 104 + (shortfall or 0), "shortfall": shortfall, "audited": 3.0}
    answer = {"accounts": [{**ACCOUNT, **account}], "source": source, "gaps": gaps}
    made = table_report("t", answer)
    assert json.loads(json.dumps(made)) == made
    return made


@pytest.mark.parametrize(
    ("shortfall", "gaps", "lost", "unexplained"),
    [
        (None, [], 0, 0),  # never audited
        (0, [], 0, 0),
        (7, [], 7, 7),  # rows that the table has, and no gap tells of them
        (7, [gap(7)], 7, 0),
        (7, [gap(2), gap(3)], 7, 2),
        (7, [gap(2), gap(None)], 7, 0),  # the second may explain any number
        (7, [gap(None, "healing")], 7, 0),
        (0, [gap(4)], 4, 0),  # deleted from the table meanwhile, but never received
    ],
)
def test_gaps_explain_losses(
    shortfall: int | None, gaps: list[dict[str, Any]], lost: int, unexplained: int
) -> None:
    made = report(shortfall, gaps)
    assert (made["lost"], made["unexplained"]) == (lost, unexplained)


def test_what_a_sinks_account_cannot_say_is_unexplained_also_if_it_is_too_much() -> None:
    assert report(0, [], unexplained=3)["unexplained"] == 3
    assert report(0, [gap(None)], unexplained=-3)["unexplained"] == 3


def test_people_see_every_term_the_gap_and_the_verdict() -> None:
    out = io.StringIO()
    tables = [report(9, [gap(7)])]
    whole = {"pipeline": "p", "time": 1.0, "lost": 9, "unexplained": 2, "unfinished": [], "tables": tables}
    show(whole, Console(file=out, width=160))
    text = out.getvalue()
    assert text.split("\n")[1].split() == ["t", "a", "100", "90", "1", "2", "3", "4", "0"]
    assert "baseline 5 + inserted 100 - deleted 1 = 104; the table had 113 at " in text
    assert ", unhealed: c; 7 rows missing, 7 fetched (n)" in text
    assert "LOST: 9 rows" in text
    assert "UNEXPLAINED: 2 rows" in text
    assert summary(whole) == "9 lost, 2 UNEXPLAINED"
    assert summary({**whole, "lost": 0, "unexplained": 0}) == "nothing lost, nothing unexplained"


def test_the_verdict_says_what_is_not_known() -> None:
    table = report(0, [gap(None)])
    table["source"]["audited"] = None
    whole = {"lost": 0, "unexplained": 0, "unfinished": ["t"], "tables": [table]}
    assert summary(whole) == (
        "nothing lost, nothing unexplained, 1 gaps of unknown size, not audited yet: t,"
        " NOT FINISHED repairing t: try again"
    )
