"""Condition and update expressions."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.v3io.server.expressions import MAX_DEPTH, parse_condition, parse_update
from protocols.v3io.server.operations import ExpressionError
from protocols.v3io.wire import Timestamp

ITEM: dict[str, Any] = {
    "n": 14,
    "x": 2.5,
    "model": "Alfa",
    "ready": True,
    "a": [5, 9, 7],
    "d": [1.0],
    "ts": Timestamp(10, 500),
    "b": b"\x00\xff",
    "set": 1,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "(n < 15) AND starts(model, 'Al')",
        "ready==true",
        "ready",
        "n",
        "NOT false",
        'model == "Alfa"',
        "n == 14 and (model == 'Alfa') and NOT(model IN ('X','Y'))",
        "n IN (1, 14)",
        "ends(model,'fa')",
        "contains(model, 'lf')",
        "exists(n) and not exists(zz)",
        "a[1] == 9",
        "max(a[0..1]) == 9",
        "min(a) == 5",
        "length(a) == 3",
        "n - 4 - 3 == 7",
        "n / 4 == 3.5",
        "n / 7 == 2",
        "-n + 1 == -13",
        "~0 == -1",
        "max(1, n) == 14",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "1 << 4 | 1 == 17",
        "6 & 3 ^ 1 == 3",
        "ready + 1 == 2",
        "`set` == 1",
        "ts > 10:499",
        "ts == 10:500",
        "b == blob('AP8=')",
        "missing == 1 OR n == 14",
        "NOT (n == 1)",
        "n != 1",
        "if_not_exists(q, 3) == 3",
        "1.5e1 == 15",
        "n==14 Or 1/0 == 1",
        "not (n == 'x')",
    ],
)
def test_conditions_that_hold(text: str) -> None:
    assert parse_condition(text)(ITEM) is True


@pytest.mark.parametrize(
    "text",
    [
        "n == 15",
        "missing == 1",
        "missing != 1",
        "NOT missing == 1",
        "NOT (missing IN (1))",
        "n == '14'",
        "n != '14'",
        "ready == 1",
        "a[3] == 0",
        "a[-1] == 7",
        "1/0 == 1",
        "model + 1 == 2",
        "length(n) == 1",
        "starts(n, '1')",
        "model",
        "missing",
        "ts == 10",
        "n << 64 == 0",
        "missing == 1 AND n == 14",
        "max(a[2..0]) == 1",
        "n IN (1,2)",
        "18446744073709551615 * 2 > 0",
    ],
)
def test_conditions_that_do_not_hold(text: str) -> None:
    assert parse_condition(text)(ITEM) is False


@pytest.mark.parametrize(
    ("text", "item", "changes"),
    [
        ("SET hits = if_not_exists(hits,0) + 1;", {}, {"hits": 1}),
        ("SET hits = if_not_exists(hits,0) + 1;", {"hits": 4}, {"hits": 5}),
        ("p=200; q=150; total = p + q", {}, {"p": 200, "q": 150, "total": 350}),
        ("v=init_array(3,'int'); v[1]=1; v[2]=v[1]+1;", {}, {"v": [0, 1, 2]}),
        ("v=init_array(1,'double'); v[0]=1", {}, {"v": [1.0]}),
        ("x=q; q=p; p=x; REMOVE x", {"p": 1, "q": 2}, {"x": None, "p": 2, "q": 1}),
        (
            "big = n > 3; s = 'a;b'; w = a[0..1]",
            {"n": 4, "a": [1, 2, 3]},
            {"big": True, "s": "a;b", "w": [1, 2]},
        ),
        ("REMOVE x; remove y;", {"x": 1}, {"x": None, "y": None}),
        ("`set` = 1", {}, {"set": 1}),
    ],
)
def test_updates(text: str, item: dict[str, Any], changes: dict[str, Any]) -> None:
    before = repr(item)
    assert parse_update(text)(item) == changes
    assert repr(item) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = missing + 1", "no attribute missing"),
        ("x = missing > 1", "does not exist"),
        ("x = 1 / 0", "division by zero"),
        ("x = model + 1", "is not a number"),
        ("a[3] = 1", "has 3 elements"),
        ("a[0] = 1.5", "array of integers"),
        ("n[0] = 1", "not an array"),
        ("x = 18446744073709551615 + 1", "64 bits"),
        ("x = init_array(1000000, 'int')", "cannot have"),
        ("x = init_array(1, 'text')", "'int' or 'double'"),
        ("x = blob('?')", "base64"),
        ("x = 1 << 99", "0 to 63"),
    ],
)
def test_updates_that_do_not_fit_the_item(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        parse_update(text)(ITEM)


@pytest.mark.parametrize(
    "text",
    [
        "a ==",
        "(a",
        "a b",
        "1 +",
        "'x",
        "a[",
        "a[0",
        "a in ()",
        "a in 1",
        "f(1)",
        "a = 1",
        "a < b < c",
        "exists(1)",
        "and",
        "a #",
        "9" * 40,
        "1:1234567890",
        "a == '\\n'",
        "starts(a)",
        "`a",
        "a" * 9000,
        "NOT " * 700,
        "-" * 650 + "1",
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "1+" * 701 + "1",
        "a in (" + ",".join("1" * 1025) + ")",
        "a[" * 40 + "0" + "]" * 40,
        "min(" * 40 + "1" + ")" * 40,
    ],
)
def test_malformed_conditions(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"^[^\n]{1,200}$"):
        parse_condition(text)


@pytest.mark.parametrize(
    "text", ["", ";", "x", "x =", "= 1", "x = 1 y = 2", "SET", "REMOVE", "__name = 'x'", "and = 1", "x[0]"]
)
def test_malformed_updates(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"^[^\n]{1,200}$"):
        parse_update(text)


def test_expressions_at_their_limits() -> None:
    assert parse_condition("1+" * 698 + "1 == 699")(ITEM)
    assert parse_condition("(" * MAX_DEPTH + "ready" + ")" * MAX_DEPTH)(ITEM)


TOKENS = st.sampled_from(
    [
        "n",
        "x",
        "model",
        "a",
        "ready",
        "zz",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "..",
        "+",
        "-",
        "*",
        "/",
        "==",
        "<",
        "AND",
        "OR",
        "NOT",
        "IN",
        "1",
        "2.5",
        "'Al'",
        "exists",
        "max",
        "SET",
        "=",
    ]
)


@given(st.lists(TOKENS, max_size=14).map(" ".join) | st.text(max_size=20))
def test_any_text_is_evaluated_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert parse_condition(text)(ITEM) in (True, False)
    with contextlib.suppress(ExpressionError):
        parse_update(text)(ITEM)


SUMS = st.recursive(
    st.integers(0, 9).map(str),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "&", "|", "^"]), inner).map(
            "({0[0]} {0[1]} {0[2]})".format
        )
        | st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map("{0[0]} {0[1]} {0[2]}".format)
    ),
    max_leaves=6,
)


@given(SUMS)
def test_arithmetic_is_that_of_python(text: str) -> None:
    # The operators used bind as Python's do.
    assert parse_update(f"x = {text}")({}) == {"x": eval(text)}
