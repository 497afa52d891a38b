"""One line of a checklist: what was measured, what it is held against, and what to do. Shared by deployment and `doctor`.

Pure. A line that is not ok always says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail", "skipped"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    name: str
    verdict: Verdict
    measured: str
    why: str = ""
    """The bound, and what it protects from."""
    next_step: str = ""


def judge(name: str, good: bool, measured: object, why: str, next_step: str) -> Check:
    """`ok`, or `fail` with the next step."""
    verdict: Verdict = "ok" if good else "fail"
    return Check(name=name, verdict=verdict, measured=str(measured), why=why, next_step="" if good else next_step)


def graded(name: str, verdict: Verdict, measured: object, why: str, next_step: str) -> Check:
    """As `judge`, where there is something between good and bad."""
    return Check(
        name=name, verdict=verdict, measured=str(measured), why=why, next_step="" if verdict == "ok" else next_step
    )


def failed(checks: Iterable[Check]) -> list[Check]:
    """Those that stop whoever asked."""
    return [check for check in checks if check.verdict == "fail"]
