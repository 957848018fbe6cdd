"""Conservation: what became of every record of a running pipeline, and what explains each that is missing.

For each sink, ``received = delivered + filtered + dead letters + dropped + pending``; at the source, ``baseline +
inserted - deleted + lost = the table's size``. ``docs/conservation.md`` explains the terms.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cluster import control

#: Seconds allowed to a monitor to count, and to fetch what is missing.
COUNT_TIMEOUT = 60.0
REPAIR_TIMEOUT = 300.0

_TERMS = ("received", "delivered", "filtered", "dead_letters", "dropped", "pending", "unexplained")

#: Shown also when they are zero.
_ALWAYS = ("received", "delivered", "pending", "unexplained")

#: Columns of a terminal that names of feeds and sinks need each; longer ones are folded.
_NAME = 12


def verify(name: str, repair: bool = False) -> dict[str, Any]:
    """The conservation report of pipeline `name`; with `repair`, after fetching what is missing.

    Raises :class:`NoSuchPipeline`, and :class:`NotReady` when a monitor is away.
    """
    tables = [table["name"] for table in control.ask(control.find(name), "status")["tables"]]
    before = {}
    if repair:
        for table in tables:
            before[table] = _count(name, table)["source"]["audited"]
            control.ask_monitor(
                name, table, "reconcile", REPAIR_TIMEOUT, timeout=REPAIR_TIMEOUT + COUNT_TIMEOUT
            )
    reports = [table_report(table, _count(name, table)) for table in tables]
    return {
        "pipeline": name,
        "time": time.time(),
        "lost": sum(report["lost"] for report in reports),
        "unexplained": sum(report["unexplained"] for report in reports),
        "unfinished": [
            report["table"]
            for report in reports
            if repair and (_unaudited(report, before[report["table"]]) or _healing(report))
        ],
        "tables": reports,
    }


def _count(name: str, table: str) -> dict[str, Any]:
    counted: dict[str, Any] = control.ask_monitor(name, table, "conservation", timeout=COUNT_TIMEOUT)
    return counted


def _unaudited(report: dict[str, Any], before: float | None) -> bool:
    source = report["source"]
    return bool(source.get("audits", True) and source["audited"] == before)


def _healing(report: dict[str, Any]) -> bool:
    return any(gap["state"] in ("open", "healing") for gap in report["gaps"])


def table_report(table: str, answer: dict[str, Any]) -> dict[str, Any]:
    """What a monitor said of its table, with what is lost and what nothing explains.

    A loss is explained by the gaps that are not healed: as many records as they say, or all if one does not know.
    """
    shortfall = answer["source"]["shortfall"] or 0
    missing = [gap["missing"] for gap in answer["gaps"]]
    known = sum(count or 0 for count in missing)
    unexplained = 0 if None in missing else max(0, shortfall - known)
    unexplained += sum(abs(account["unexplained"]) for account in answer["accounts"])
    return {
        "table": table,
        "lost": max(shortfall, known),
        "unexplained": unexplained,
        "source": answer["source"],
        "gaps": answer["gaps"],
        "sinks": answer["accounts"],
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print a report."""
    _show_accounts(
        [each for table in report["tables"] for each in table["sinks"] if each["received"]], console
    )
    for table in report["tables"]:
        console.print(escape(f"{table['table']}: {_source(table['source'])}"), highlight=False)
        for gap in table["gaps"]:
            console.print(escape(f"  {_gap(gap)}"), style="yellow", highlight=False)
        if table["lost"]:
            console.print(f"  LOST: {table['lost']:,} rows", style="bold red", highlight=False)
        if table["unexplained"]:
            console.print(f"  UNEXPLAINED: {table['unexplained']:,} rows", style="bold red", highlight=False)
    console.print(summary(report), highlight=False)


def _show_accounts(accounts: list[dict[str, Any]], console: Console) -> None:
    """A row per account, of the terms that are not zero everywhere; where that is too wide, a sentence for each."""
    terms = [term for term in _TERMS if term in _ALWAYS or any(account[term] for account in accounts)]
    numbers = {term: [f"{account[term]:,}" for account in accounts] for term in terms}
    words = {term: term.replace("_", " ") for term in terms}
    width = sum(2 + max(map(len, (words[term], *numbers[term]))) for term in terms)
    if width + 2 * _NAME > console.width:
        for account in accounts:
            shown = [term for term in terms[1:-1] if term in _ALWAYS or account[term]]
            parts = " + ".join(f"{account[term]:,} {words[term]}" for term in shown)
            line = f"{account['feed']} to {account['sink']}: {account['received']:,} received = {parts}"
            console.print(escape(f"{line}; {account['unexplained']:,} unexplained"), highlight=False)
        return
    columns = (Column(words[term], justify="right", no_wrap=True) for term in terms)
    table = Table(Column("feed", overflow="fold"), Column("sink", overflow="fold"), *columns, box=None)
    for number, account in enumerate(accounts):
        row = (numbers[term][number] for term in terms)
        table.add_row(escape(account["feed"]), escape(account["sink"]), *row)
    console.print(table)


def summary(report: dict[str, Any]) -> str:
    """The verdict in one line, with what it could not take into account."""
    parts = [f"{report['lost']:,} lost" if report["lost"] else "nothing lost"]
    parts.append(f"{report['unexplained']:,} UNEXPLAINED" if report["unexplained"] else "nothing unexplained")
    if unknown := sum(gap["missing"] is None for table in report["tables"] for gap in table["gaps"]):
        parts.append(f"{unknown} gaps of unknown size")
    if never := [
        table["table"]
        for table in report["tables"]
        if table["source"]["audited"] is None and table["source"].get("audits", True)
    ]:
        parts.append(f"not audited yet: {', '.join(never)}")
    if report["unfinished"]:
        parts.append(f"NOT FINISHED repairing {', '.join(report['unfinished'])}: try again")
    return ", ".join(parts)


def _source(source: dict[str, Any]) -> str:
    if source.get("dropped"):
        return f"{source['inserted']:,} inserted; the table was dropped"
    if not source.get("audits", True):
        return f"{source['inserted']:,} read"
    if source["expected"] is None:
        return f"{source['inserted']:,} inserted; whether the table has more cannot be told"
    counted = (
        f"baseline {source['baseline']:,} + inserted {source['inserted']:,} - deleted {source['deleted']:,}"
        f" = {source['expected']:,}"
    )
    if source["audited"] is None:
        return f"{counted}; not audited yet"
    when = time.strftime("%H:%M:%S", time.localtime(source["audited"]))
    return f"{counted}; the table had {source['size']:,} at {when}"


def _gap(gap: dict[str, Any]) -> str:
    clock = [
        time.strftime("%H:%M:%S", time.localtime(at)) if at else "now" for at in (gap["began"], gap["ended"])
    ]
    missing = "an unknown number of" if gap["missing"] is None else f"{gap['missing']:,}"
    note = f" ({gap['note']})" if gap["note"] else ""
    return (
        f"gap {gap['number']} from {clock[0]} to {clock[1]}, {gap['state']}: {gap['cause']}; {missing} rows missing,"
        f" {gap['recovered']:,} fetched{note}"
    )
