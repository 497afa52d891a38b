"""Metrics: the field's names, closed labels, one registry per node."""

from __future__ import annotations

from typing import cast

import pytest

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.ops.metrics import CONTENT_TYPE, Metrics, MoneyGauge
from fabstir.ports.chain import TransactionEnd

USDC, FOREIGN = Address(b"\x0a" * 20), Address(b"\x0b" * 20)


def test_names_follow_the_field() -> None:
    """A dashboard made for vLLM finds its series under our prefix."""
    text = Metrics().expose().decode()
    for name in (
        "fabstir_request_success_total",
        "fabstir_time_to_first_token_seconds_bucket",
        "fabstir_inter_token_latency_seconds_bucket",
        "fabstir_e2e_request_latency_seconds_bucket",
        "fabstir_num_requests_running",
        "fabstir_num_requests_waiting",
        "fabstir_prompt_tokens_total",
        "fabstir_generation_tokens_total",
    ):
        assert f"\n{name}" in text
    assert CONTENT_TYPE.startswith("text/plain")


def test_what_is_counted_is_exposed() -> None:
    """From the holder to the page."""
    metrics = Metrics()
    metrics.success("stop")
    metrics.failure("capacity")
    metrics.transaction(TransactionEnd.MINED, 21_000)
    metrics.transaction(TransactionEnd.REFUSED)
    metrics.up("chain", True)
    metrics.unacknowledged_tokens.set(12)
    lines = metrics.expose().decode().splitlines()
    assert 'fabstir_request_success_total{finish_reason="stop"} 1.0' in lines
    assert 'fabstir_request_failure_total{code="capacity"} 1.0' in lines
    assert 'fabstir_transactions_total{result="mined"} 1.0' in lines
    assert 'fabstir_transactions_total{result="refused"} 1.0' in lines
    assert "fabstir_gas_used_total 21000.0" in lines
    assert 'fabstir_part_up{part="chain"} 1.0' in lines
    assert 'fabstir_part_up{part="engine"} 0.0' in lines
    assert "fabstir_unacknowledged_tokens 12.0" in lines


def test_no_label_takes_a_value_outside_its_closed_set() -> None:
    """A session id as a label would grow the page without bound."""
    metrics = Metrics()
    for count in (metrics.success, metrics.failure, metrics.prompt_outcome):
        with pytest.raises(ValueError, match="session-17"):
            count("session-17")
    with pytest.raises(ValueError, match="session-17"):
        metrics.transaction(cast(TransactionEnd, "session-17"))
    with pytest.raises(ValueError, match="session-17"):
        metrics.up("session-17", True)


def test_money_has_a_currency() -> None:
    """The market's USDC and ETH by name, another token by its address: they have other units."""
    metrics = Metrics(USDC)
    metrics.earned.add(USDC, 5)
    metrics.earned.add(USDC, 6)
    metrics.earned.add(ZERO_ADDRESS, 10**15)
    metrics.earned.add(FOREIGN, 7)
    (family,) = [family for family in metrics.registry.collect() if family.name == "fabstir_earned_base_units"]
    earned = {sample.labels["token"]: sample.value for sample in family.samples}
    assert earned == {"usdc": 11, "eth": 10**15, "0x" + "0b" * 20: 7}


def test_an_amount_that_nobody_asked_for_is_not_zero() -> None:
    """A gauge of money is absent until it is first known; then what is not there any more is 0, of a foreign token, too."""
    metrics = Metrics(USDC)
    assert "fabstir_withdrawable_base_units{" not in metrics.expose().decode()
    metrics.withdrawable.show({USDC: 3, FOREIGN: 4})
    metrics.withdrawable.show({ZERO_ADDRESS: 5})
    shown = {
        name: metrics.registry.get_sample_value("fabstir_withdrawable_base_units", {"token": name})
        for name in ("usdc", "eth", "0x" + "0b" * 20)
    }
    assert shown == {"usdc": 0, "eth": 5, "0x" + "0b" * 20: 0}


def test_every_amount_is_by_token() -> None:
    """Whatever is in base units has the label, and no series without it."""
    metrics = Metrics(USDC)
    for amounts in vars(metrics).values():
        if isinstance(amounts, MoneyGauge):
            amounts.show({})
    families = [family for family in metrics.registry.collect() if "base_units" in family.name]
    assert len(families) == 6
    for family in families:
        assert {sample.labels.get("token") for sample in family.samples} == {"usdc", "eth"}, family.name


def test_restarts_are_counted_once() -> None:
    """They come as the engine's own count, as often as somebody looks; an engine that was made anew takes nothing back."""
    metrics = Metrics()
    for total in (0, 2, 2, 0, 2, 3):
        metrics.restarts(total)
    assert metrics.registry.get_sample_value("fabstir_engine_restarts_total") == 3


def test_two_nodes_in_one_process_do_not_mix() -> None:
    """The demo runs two hosts."""
    one, other = Metrics(), Metrics()
    one.generation_tokens.inc(5)
    assert b"fabstir_generation_tokens_total 5.0" in one.expose()
    assert b"fabstir_generation_tokens_total 0.0" in other.expose()
