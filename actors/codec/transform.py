"""What becomes of a table's rows between decoding and writing: fewer of them, other columns, other names.

Four steps, in this order, each optional::

    where         rows for which this is not true are filtered
    with_columns  new columns, or other values for old ones, of the columns that came
    select        which columns go on, in this order
    rename        old name -> new

``where`` and the values of ``with_columns`` are polars SQL expressions, evaluated on whole columns. Each must give a
row its value from that row alone. A row for which one fails (a text that is no number cannot be cast) is a failure with
the reason; so is every row if a column is gone that the transform needs, or has another type than an expression takes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

#: Rows on which expressions are tried, and values to try them with.
_SAMPLE_ROWS = 8
_SAMPLES: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    (pl.Boolean, (True, False)),
    (pl.String, ("", "a", "b", "1", "2026-01-02", "x y")),
)
_NUMBERS = (0, 1, 2, 3, 50, 100)


_NOT_ALONE = "must give each row its value from that row alone, as no sum and no window does"


class TransformError(ValueError):
    """A transform that a table's columns do not allow; one line that begins with its key."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """The rows that are left, in order; `kept` says which they were, `failures` why which others are not."""

    rows: Any
    kept: npt.NDArray[np.int64]
    failures: dict[int, str]


class Transform:
    """The steps of one table.

    Args:
        spec: ``where``, ``with_columns``, ``select`` and ``rename`` as in the pipeline file; None for what is absent.

    Raises :class:`TransformError` for what is not an expression.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._where = _parse("where", spec["where"]) if spec.get("where") else None
        self._columns = {
            name: _parse(f"with_columns.{name}", text)
            for name, text in (spec.get("with_columns") or {}).items()
        }
        self._select = spec.get("select")
        self._rename = dict(spec.get("rename") or {})
        #: The outputs of schemas seen, or what is wrong with them.
        self._outputs: dict[Any, Any] = {}

    def output(self, schema: Any) -> Any:
        """The schema of the rows that rows of `schema` become. Raises :class:`TransformError`."""
        found = self._outputs.get(schema)
        if found is None:
            try:
                found = self._output(schema)
            except TransformError as error:
                found = error
            self._outputs[schema] = found
        if isinstance(found, TransformError):
            raise found
        return found

    def check(self, schema: Any) -> None:
        """Raises :class:`TransformError` if rows of `schema` cannot be transformed, or not each by itself."""
        self.output(schema)
        frame = _sample(schema)
        for key, expression in self._expressions():
            bad: dict[int, str] = {}
            alone = [_evaluate(expression, frame[row], bad, row) for row in range(frame.height)]
            good = [row for row in range(frame.height) if row not in bad]
            together = _evaluate(expression, frame[good], {})
            if good and not together.equals(_united([alone[row] for row in good])):
                raise TransformError(f"{key}: {_NOT_ALONE}")

    def apply(self, rows: Any) -> Transformed:
        """Transform a record batch. Never raises for what is in it."""
        everything = np.arange(rows.num_rows)
        try:
            schema = self.output(rows.schema)
        except TransformError as error:
            reason = f"transform.{error}"
            return Transformed(rows.slice(0, 0), everything[:0], dict.fromkeys(everything.tolist(), reason))
        failures: dict[int, str] = {}
        kept = everything
        if self._where is not None:
            holds = _evaluate(self._where, _frame(rows, self._where), failures)
            kept = np.flatnonzero(holds.cast(pl.Boolean).fill_null(False).to_numpy())
            _named(failures, "where")
        if len(kept) < rows.num_rows:
            rows = rows.take(pa.array(kept))
        values = dict(zip(rows.schema.names, rows.columns, strict=True))
        for name, expression in self._columns.items():
            bad: dict[int, str] = {}
            series = _evaluate(expression, _frame(rows, expression), bad)
            _named(bad, f"with_columns.{name}")
            for row, reason in bad.items():
                failures.setdefault(int(kept[row]), reason)
            values[name] = series
        back = {new: old for old, new in self._rename.items()}
        columns = [_arrow(values[back.get(field.name, field.name)], field.type) for field in schema]
        result = pa.RecordBatch.from_arrays(columns, schema=schema)
        if failures:
            good = ~np.isin(kept, list(failures))
            result, kept = result.filter(pa.array(good)), kept[good]
        return Transformed(result, kept, failures)

    def _expressions(self) -> Iterator[tuple[str, pl.Expr]]:
        if self._where is not None:
            yield "where", self._where
        for name, expression in self._columns.items():
            yield f"with_columns.{name}", expression

    def _output(self, schema: Any) -> Any:
        fields = {field.name: field for field in schema}
        for key, expression in self._expressions():
            _known(key, expression.meta.root_names(), schema.names)
            try:
                series = _values(expression, _frame(schema.empty_table(), expression))
            except (KeyboardInterrupt, SystemExit, MemoryError):
                raise
            except BaseException as error:  # polars' panics are no Exceptions
                raise TransformError(
                    f"{key}: {_line(error)}; the columns are {_list(schema.names)}"
                ) from None
            if key == "where":
                if series.dtype not in (pl.Boolean, pl.Null):
                    raise TransformError(f"where: gives {series.dtype}, not true or false; write a condition")
                continue
            name = key.removeprefix("with_columns.")
            fields[name] = pa.field(name, _sink_type(key, series))
        if self._select is not None:
            _known("select", self._select, list(fields))
            fields = {name: fields[name] for name in self._select}
        _known("rename", self._rename, list(fields))
        names = [self._rename.get(name, name) for name in fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TransformError(f"rename: {twice[0]} would be there twice; the columns are {_list(fields)}")
        return pa.schema([field.with_name(name) for name, field in zip(names, fields.values(), strict=True)])


def _parse(key: str, text: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except Exception as error:
        raise TransformError(
            f"{key}: not a polars SQL expression: {_line(error)}; see docs/transforms.md"
        ) from None


def _frame(rows: Any, expression: pl.Expr) -> pl.DataFrame:
    """The columns that an expression needs, and at least one, as that has the count of rows."""
    names = set(expression.meta.root_names()) or rows.schema.names[:1]
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    frame = pl.from_arrow(table.select([name for name in rows.schema.names if name in names]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _values(expression: pl.Expr, frame: pl.DataFrame) -> pl.Series:
    """The value of each row; what is the same for all rows need not name a column."""
    series = frame.lazy().select(expression.alias("_")).collect()["_"]
    if len(series) == frame.height:
        return series
    if len(series) == 1 and not expression.meta.root_names():
        return series.new_from_index(0, frame.height)
    raise ValueError(_NOT_ALONE)


def _evaluate(expression: pl.Expr, frame: pl.DataFrame, bad: dict[int, str], start: int = 0) -> pl.Series:
    """The value of each row; rows for which there is none are null, and `bad` says why, counting from `start`."""
    try:
        return _values(expression, frame)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # polars' panics are no Exceptions
        if frame.height <= 1:
            bad[start] = _line(error)
            return pl.Series([None] * frame.height, dtype=pl.Null)
    half = frame.height // 2
    pieces = [
        _evaluate(expression, frame[:half], bad, start),
        _evaluate(expression, frame[half:], bad, start + half),
    ]
    return _united(pieces)


def _united(pieces: list[pl.Series]) -> pl.Series:
    known = next((piece.dtype for piece in pieces if piece.dtype != pl.Null), pl.Null)
    return pl.concat([piece.cast(known) for piece in pieces])


def _sample(schema: Any) -> pl.DataFrame:
    """Rows to try expressions with, the same each time."""
    chooser = random.Random(7)
    empty = pl.from_arrow(schema.empty_table())
    assert isinstance(empty, pl.DataFrame)
    columns = []
    for name, kind in empty.schema.items():
        values = next(
            (values for known, values in _SAMPLES if kind == known),
            _NUMBERS if kind.is_numeric() else (None,),
        )
        chosen = [chooser.choice(values) for _ in range(_SAMPLE_ROWS)]
        columns.append(pl.Series(name, chosen, dtype=kind, strict=False))
    return pl.DataFrame(columns)


def _sink_type(key: str, series: pl.Series) -> Any:
    """The Arrow type that sinks know for a new column."""
    kind = series.dtype
    if isinstance(kind, pl.Datetime):
        return pa.timestamp("ms", "UTC") if kind.time_zone else pa.timestamp("us")
    if kind == pl.Time:
        return pa.time64("us")
    if kind == pl.Null:
        return pa.large_string()
    inner = kind.inner if isinstance(kind, pl.List) else kind
    if inner is None or not (inner.is_numeric() or inner in (pl.Boolean, pl.String, pl.Binary, pl.Date)):
        raise TransformError(f"{key}: gives {kind}, which no sink takes; cast it to a text or a number")
    return series.to_arrow(compat_level=pl.CompatLevel.oldest()).type


def _arrow(values: Any, kind: Any) -> Any:
    """A column as it goes on; a new one in its type of all blocks."""
    if not isinstance(values, pl.Series):
        return values
    return values.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind, safe=False)


def _known(key: str, names: Any, columns: Any) -> None:
    for name in names:
        if name not in columns:
            raise TransformError(f"{key}: there is no column {name}; the columns are {_list(columns)}")


def _named(failures: dict[int, str], key: str) -> None:
    for row, reason in failures.items():
        failures[row] = f"transform.{key}: {reason}"


def _list(names: Any) -> str:
    return ", ".join(names)


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:300]
