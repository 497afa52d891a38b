"""docs/reference/metrics.md, from the registry in `fabstir.ops.metrics`."""

from __future__ import annotations

from fabstir.ops.metrics import Metrics, MoneyGauge
from fabstir.testing.machine import CALM
from reference.table import table

INTRODUCTION = """\
# Metrics

`GET /metrics` in Prometheus' text format. Names follow vLLM's with our prefix, so that its dashboards fit after one replacement. No label
has unbounded values: sessions, jobs and accounts are never labels.

Amounts of money are base units of the label `token`: `usdc` (1e-6 USDC), `eth` (wei), or the address of a token that was taken under an
earlier configuration. They are never added up over tokens; do not either: `sum by (token)`. What only the chain knows stands as it was last
seen while `fabstir_part_up{part="chain"}` is 0."""


def render() -> str:
    """The page: one table."""
    metrics = Metrics()
    metrics.failure("capacity")  # a series shows its labels once it has a value
    metrics.models([("tiny-chat", True, 0, 0, {"engine": True})])
    metrics.machine(CALM)
    for amounts in vars(metrics).values():
        if isinstance(amounts, MoneyGauge):
            amounts.show({})
    rows = []
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        rows.append((f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation))
    return f"{INTRODUCTION}\n\n{table(('Series', 'Type', 'Labels', 'Meaning'), sorted(rows))}"
