"""What singleflight promises, case by case, with the tests that hold it to that."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1] / "concurrency" / "test_singleflight.py"

CASES = (
    "N concurrent callers, one call, and all get its value; a caller that comes after it has landed starts anew.",
    "The first caller is cancelled: the others still get the value, with one call.",
    "One waiter is cancelled or times out: only that one is affected.",
    "All leave: the work is cancelled, its `finally` runs, the key is free.",
    "A caller that comes while that cancelled work still unwinds gets a fresh flight, never the old cancellation.",
    "The work raises: all get the error, with one call and no convoy of retries; the next call tries again.",
    "Each waiter gets an exception instance of its own, chained to the original; no traceback or context grows.",
    "Work that raises `CancelledError` itself reaches the waiters as an error, not as their own cancellation.",
    "Re-entry on the same key, and by way of other keys, raises at once instead of hanging.",
    "No complaint about exceptions never retrieved; the running task is strongly referenced.",
    "`forget(key)` in flight: old waiters get the old value, a new caller a new flight, and the old end spares it.",
    "A synchronous raise, and a cancellation before the first step, free the key.",
    "The work sees a copy of the first caller's context variables, and changes nobody's.",
    "A mutable value is not shared by surprise: wrapped methods give each caller a copy.",
    "A million distinct keys leave an empty map and flat memory.",
    "`aclose()` waits or cancels, and says so where it can't; use from another loop raises clearly.",
    "A caller that becomes first just after a landing looks into the cache again before it loads.",
)


def tests_of(case: int) -> list[str]:
    """The names of the tests of a case, numbered from 1, in the order in which they stand."""
    names = [
        node.name
        for node in ast.parse(TESTS.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [name for name in names if name.startswith(f"test_{case:02}_")]


def listed() -> str:
    """The cases as a numbered list."""
    lines = []
    for number, promise in enumerate(CASES, start=1):
        lines += [f"{number}. {promise}", *(f"   - `{name}`" for name in tests_of(number))]
    return "\n".join(lines)
