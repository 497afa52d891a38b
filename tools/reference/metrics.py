"""docs/reference/metrics.md, from the registry in `fabstir.ops.metrics`."""

from __future__ import annotations

from fabstir.ops.metrics import Metrics
from reference.table import table

INTRODUCTION = """\
# Metrics

`GET /metrics` in Prometheus' text format. Names follow vLLM's with our prefix, so that its dashboards fit after one replacement. No label
has unbounded values: sessions, jobs and accounts are never labels. Amounts of money are base units (1e-6 USDC)."""


def render() -> str:
    """The page: one table."""
    metrics = Metrics()
    metrics.failure("capacity")  # a series shows its labels once it has a value
    rows = []
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        rows.append((f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation))
    return f"{INTRODUCTION}\n\n{table(('Series', 'Type', 'Labels', 'Meaning'), sorted(rows))}"
