"""The alert rules: they parse, ask only for what the node shows, and say what to do; the how-to has the same ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from fabstir.cli.app import COMMANDS
from fabstir.domain.errors import CATALOGUE
from fabstir.ops.metrics import CURRENCIES, PARTS, Metrics
from fabstir.ports.chain import TransactionEnd

RULES = Path("deploy/prometheus/fabstir-alerts.yml")
PAGE = Path("docs/how-to/alerts.md")
FUNCTIONS = {"absent", "by", "and", "or", "changes", "increase", "min_over_time", "sum"}
LABELS = {"instance", "code", "part", "result", "token", "model_name", "engine"}


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def shown() -> set[str]:
    """Every series of a node, by its name in Prometheus."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + end for family in Metrics().registry.collect() for end in endings[family.type]}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_there(rule: dict[str, Any]) -> None:
    """A misspelt metric, part or code would never fire, and nobody would notice."""
    expression = re.sub(r"\[\d+[smh]\]", "", rule["expr"])
    named = set(re.findall(r"\bfabstir_\w+", expression))
    assert named and named <= shown()
    assert set(re.findall(r'part="(\w+)"', expression)) <= set(PARTS)
    assert set(re.findall(r'token="(\w+)"', expression)) <= set(CURRENCIES)
    assert set(re.findall(r'result="(\w+)"', expression)) <= set(TransactionEnd)
    for codes in re.findall(r'code=~"([\w|]+)"', expression):
        assert set(codes.split("|")) <= CATALOGUE.keys()
    without_texts = re.sub(r'"[^"]*"', "", expression)
    assert set(re.findall(r"[A-Za-z_]\w*", without_texts)) - named <= FUNCTIONS | LABELS
    assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_amount_is_compared_within_its_currency(rule: dict[str, Any]) -> None:
    """A bound above 0 is in one token's units: what is a fortune in USDC is nothing in wei."""
    for selector, bound in re.findall(r"fabstir_\w+_base_units(?:_total)?(\{[^}]*\})?[^<>=]*>\s*(\d+)", rule["expr"]):
        assert bound == "0" or re.fullmatch(r'\{token="\w+"\}', selector)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """After how long, how urgent, what happened, and a command that exists."""
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "command"} and rule["annotations"]["summary"]
    program, command, *_ = rule["annotations"]["command"].split()
    assert program == "fabstir" and command in {row.name for row in COMMANDS}


def test_each_alert_has_its_row_in_the_how_to() -> None:
    """With the same severity; and no row is left of an alert that is gone."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]
    assert len(dict(rows)) == len(rows)
