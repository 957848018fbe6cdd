"""The endpoints that read and write rows: insert, get, update, delete, and SELECT statements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from protocols.kinetica import wire
from protocols.kinetica.server import options as opt
from protocols.kinetica.server import values
from protocols.kinetica.server.catalogue import Catalogue
from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.server.intake import Batch, Intake
from protocols.kinetica.server.monitors import Monitors
from protocols.kinetica.server.rows import row_to_json
from protocols.kinetica.server.sql import connect, select, split_select
from protocols.kinetica.server.table import ABORT, IGNORE, REPLACE, Insertion, Table
from protocols.kinetica.types import Column

Request = dict[str, Any]
Response = dict[str, Any]

_ENCODINGS = ("binary", "json")
_SQL_BASES: dict[type, str] = {int: "long", float: "double", bytes: "bytes", str: "string"}


class Records:
    """Rows of the tables in `catalogue`, at most `max_get_records` per reply; `monitors` hear of changes."""

    def __init__(self, catalogue: Catalogue, monitors: Monitors, max_get_records: int) -> None:
        self._catalogue = catalogue
        self._monitors = monitors
        self._most = max_get_records

    def insert_records(self, request: Request) -> Response:
        options = request["options"]
        encoding = opt.one_of("list_encoding", request["list_encoding"] or "binary", _ENCODINGS)
        handling = options.get("error_handling", "")
        opt.one_of("error_handling", handling or "abort", ("permissive", "skip", "abort"))
        opt.refuse(
            options, ("transformations", "pk_conflict_predicate_higher", "pk_conflict_predicate_lower")
        )
        partial = opt.flag(options, "allow_partial_batch", handling in ("permissive", "skip"))
        if handling and partial != (handling != "abort"):
            raise RequestError(f"allow_partial_batch contradicts error_handling={handling}")
        report = partial or opt.flag(options, "return_individual_errors")
        dry_run = opt.flag(options, "dry_run")
        with self._catalogue.table(request["table_name"]) as table:
            intake = Intake(
                table.codec,
                encoding=encoding,
                request_schema=options.get("request_schema_str", "") if encoding == "binary" else "",
                truncate=opt.flag(options, "truncate_strings"),
                repair=handling == "permissive",
            )
            batch = intake.read(request["list" if encoding == "binary" else "list_str"], lenient=report)
            errors = batch.errors
            if errors and not partial:
                batch = Batch([], [[] for _ in table.type.columns], [], errors)
            outcome = self._insert(table, batch, options, dry_run=dry_run, report=report, partial=partial)
            if not dry_run:
                self._monitors.inserted(table, outcome, batch.frames)
        info = {f"error_{index}": reason for index, reason in sorted(errors.items())}
        if errors:
            info["bad_record_indices"] = ",".join(map(str, sorted(errors)))
        ids: list[int] = []
        if opt.flag(options, "return_record_ids") and not dry_run:
            ids = sorted(set(outcome.ids) - {outcome.first + index for index in outcome.collided})
        return {
            "record_ids": [f"{record_id:016x}" for record_id in ids],
            "count_inserted": outcome.inserted,
            "count_updated": outcome.updated,
            "info": info,
        }

    @staticmethod
    def _insert(
        table: Table, batch: Batch, options: dict[str, str], *, dry_run: bool, report: bool, partial: bool
    ) -> Insertion:
        if (policy := _conflict_policy(options)) != ABORT or not report:
            return table.insert(batch, policy, dry_run=dry_run)
        outcome = table.insert(batch, IGNORE, dry_run=dry_run or not partial)
        for index in outcome.collided:
            batch.errors[batch.positions[index]] = "a record with this primary key exists already"
        if partial:
            return outcome
        if outcome.collided or batch.errors:
            return Insertion((), outcome.first, 0, 0)
        return table.insert(batch, ABORT, dry_run=dry_run)

    def get_records(self, request: Request) -> Response:
        encoding = opt.one_of("encoding", request["encoding"] or "binary", _ENCODINGS)
        with self._catalogue.table(request["table_name"]) as table:
            frames, total, more = self._read(table, request)
            type_id, definition, codec = self._catalogue.type_id(table), table.type.definition, table.codec
        as_json = encoding == "json"
        return {
            "table_name": request["table_name"],
            "type_name": type_id,
            "type_schema": definition,
            "records_binary": [] if as_json else frames,
            "records_json": [row_to_json(row) for row in codec.rows(frames)] if as_json else [],
            "total_number_of_records": total,
            "has_more_records": more,
            "info": {},
        }

    def _read(self, table: Table, request: Request) -> tuple[list[bytes], int, bool]:
        options = request["options"]
        expression, offset = options.get("expression", ""), request["offset"]
        limit = opt.page(offset, request["limit"], self._most)
        frames = table.frames(expression, order=opt.order(options), limit=limit, offset=offset)
        total = table.count(expression)
        return frames, total, offset + len(frames) < total

    def get_records_by_column(self, request: Request) -> Response:
        with self._catalogue.table(request["table_name"]) as table:
            names = request["column_names"]
            columns = [table.column(name) for name in (table.type.names if names == ["*"] else names)]
            frames, total, more = self._read(table, request)
            data = dict(zip(table.type.names, table.codec.columns(frames), strict=True))
        return {
            "table_name": request["table_name"],
            **_dynamic(
                request["encoding"],
                [column.name for column in columns],
                [values.specific_type(column) for column in columns],
                [column.avro for column in columns],
                [data[column.name] for column in columns],
            ),
            "total_number_of_records": total,
            "has_more_records": more,
            "info": {},
        }

    def delete_records(self, request: Request) -> Response:
        expressions = request["expressions"]
        delete_all = opt.flag(request["options"], "delete_all_records")
        if delete_all == bool(expressions) or not all(map(str.strip, expressions)):
            raise RequestError("give expressions to delete by, or none and delete_all_records=true")
        opt.refuse(request["options"], ("record_id", "global_expression"))
        with self._catalogue.table(request["table_name"]) as table:
            counts = [table.delete_all()] if delete_all else table.delete(expressions)
            self._monitors.deleted(table, sum(counts))
        return {"count_deleted": sum(counts), "counts_deleted": [] if delete_all else counts, "info": {}}

    def update_records(self, request: Request) -> Response:
        options, expressions = request["options"], request["expressions"]
        encoding = opt.one_of("record_encoding", request["record_encoding"] or "binary", _ENCODINGS)
        opt.refuse(
            options, ("pk_conflict_predicate_higher", "pk_conflict_predicate_lower", "truncate_strings")
        )
        opt.one_of("error_handling", options.get("error_handling") or "abort", ("abort",))
        records = request["records_to_insert"] if encoding == "binary" else request["records_to_insert_str"]
        if len(request["new_values_maps"]) != len(expressions) or len(records) not in (0, len(expressions)):
            raise RequestError(
                "expressions, new_values_maps and records_to_insert must be of the same length"
            )
        if not all(map(str.strip, expressions)):
            raise RequestError("an expression to update by is blank; use 1 = 1 for every row")
        if within := options.get("global_expression"):
            expressions = [f"({within}) and ({expression})" for expression in expressions]
        with self._catalogue.table(request["table_name"]) as table:
            batch = Intake(table.codec, encoding=encoding).read(records)
            singles: list[Batch | None] = [
                Batch([frame], [[column[i]] for column in batch.columns], [i], {})
                for i, frame in enumerate(batch.frames)
            ] or [None] * len(expressions)
            counts, insertions = table.update(
                list(zip(expressions, request["new_values_maps"], strict=True)),
                singles,
                _conflict_policy(options),
                as_expressions=opt.flag(options, "use_expressions_in_new_values_maps"),
            )
            self._monitors.updated(table, sum(counts))
            for insertion, single in zip(insertions, singles, strict=True):
                if insertion and single:
                    self._monitors.inserted(table, insertion, single.frames)
        inserted = [insertion.inserted if insertion else 0 for insertion in insertions]
        replaced = [insertion.updated if insertion else 0 for insertion in insertions]
        counts = [count + extra for count, extra in zip(counts, replaced, strict=True)]
        return {
            "count_updated": sum(counts),
            "counts_updated": counts,
            "count_inserted": sum(inserted),
            "counts_inserted": inserted,
            "info": {},
        }

    def execute_sql(self, request: Request) -> Response:
        if request["data"]:
            raise RequestError("query parameters (data) are not supported by the embedded table server")
        offset, limit = request["offset"], opt.page(request["offset"], request["limit"], self._most)
        statement, name = split_select(request["statement"])
        counting = f"SELECT count(*) FROM (\n{statement}\n)"
        columns: dict[str, Column] = {}
        if name is None:
            database = connect(":memory:")
            try:
                _, [(total,)] = select(database, counting, 1)
                headers, rows = select(database, statement, min(offset + limit, total))
            finally:
                database.close()
        else:
            with self._catalogue.table(name) as table:
                _, [(total,)] = table.select(counting, 1)
                headers, rows = table.select(statement, min(offset + limit, total))
                columns = {column.name: column for column in table.type.columns}
        rows = rows[offset:]
        data = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in headers]
        found = [columns.get(header) for header in headers]
        bases = [
            column.base if column else _base_of(cells) for column, cells in zip(found, data, strict=True)
        ]
        return {
            "count_affected": len(rows),
            **_dynamic(
                request["encoding"],
                headers,
                [values.specific_type(c) if c else base for c, base in zip(found, bases, strict=True)],
                [[base, "null"] for base in bases],
                data,
            ),
            "total_number_of_records": total,
            "has_more_records": offset + len(rows) < total,
            "paging_table": "",
            "info": {},
        }


def _conflict_policy(options: dict[str, str]) -> str:
    if opt.flag(options, "update_on_existing_pk"):
        return REPLACE
    return IGNORE if opt.flag(options, "ignore_existing_pk") else ABORT


def _base_of(cells: Sequence[Any]) -> str:
    """The base type that holds every value of a computed column."""
    bases = {_SQL_BASES[type(cell)] for cell in cells if cell is not None}
    if bases == {"long", "double"}:
        return "double"
    if len(bases) > 1:
        raise RequestError("a column of the result mixes types; cast it to one of them")
    return bases.pop() if bases else "string"


def _dynamic(
    encoding: str,
    headers: Sequence[str],
    datatypes: Sequence[str],
    avro_types: Sequence[Any],
    columns: Sequence[Sequence[Any]],
) -> dict[str, Any]:
    """The fields of a reply whose schema depends on the request: ``column_1`` ..., headers and types."""
    opt.one_of("encoding", encoding or "binary", _ENCODINGS)
    names = [f"column_{i + 1}" for i in range(len(headers))]
    arrays = [
        *zip(names, avro_types, strict=True),
        ("column_headers", "string"),
        ("column_datatypes", "string"),
    ]
    fields = [{"name": name, "type": {"type": "array", "items": items}} for name, items in arrays]
    schema = {"type": "record", "name": "generic_response", "fields": fields}
    record = {
        **dict(zip(names, columns, strict=True)),
        "column_headers": list(headers),
        "column_datatypes": list(datatypes),
    }
    as_json = encoding == "json"
    return {
        "response_schema_str": json.dumps(schema),
        "binary_encoded_response": b"" if as_json else wire.encode(schema, record),
        "json_encoded_response": row_to_json(record) if as_json else "",
    }
