"""docs/reference/errors.md, from the catalogue in `fabstir.domain.errors`."""

from __future__ import annotations

from itertools import groupby

from fabstir.domain.errors import CATALOGUE, ErrorSpec
from reference.table import table

INTRODUCTION = """\
# Errors

Every refusal and failure has one of these codes, the same on the WebSocket, over HTTP, in the SDK, in the log and on the screen. The
code is stable; the words may change. `retryable` says whether the same request can succeed later. On the wire an error also carries a
`detail` (what was measured, and the bound) and the next step. `fabstir explain error CODE` prints one of them."""


def render() -> str:
    """The page: one table per branch of the tree."""
    parts = [INTRODUCTION]
    by_kind = sorted(CATALOGUE.values(), key=_order)
    for kind, specs in groupby(by_kind, key=lambda spec: spec.kind):
        parts.append(f"## {kind.__name__}\n\n{kind.__doc__}")
        rows = [
            (
                f"`{spec.code}`",
                "yes" if spec.retryable else "no",
                str(spec.http_status),
                f"{spec.summary}.",
                spec.next_step,
            )
            for spec in specs
        ]
        parts.append(table(("Code", "Retryable", "HTTP", "What happened", "What to do"), rows))
    return "\n\n".join(parts)


def _order(spec: ErrorSpec) -> int:
    """Branches in the order in which the catalogue first names them."""
    return [other.kind for other in CATALOGUE.values()].index(spec.kind)
