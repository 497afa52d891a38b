"""Metrics: the field's names, closed labels, one registry per node."""

from __future__ import annotations

import pytest

from fabstir.ops.metrics import CONTENT_TYPE, Metrics


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
    metrics.transaction("mined")
    metrics.up("chain", True)
    metrics.unacknowledged_tokens.set(12)
    lines = metrics.expose().decode().splitlines()
    assert 'fabstir_request_success_total{finish_reason="stop"} 1.0' in lines
    assert 'fabstir_request_failure_total{code="capacity"} 1.0' in lines
    assert 'fabstir_transactions_total{result="mined"} 1.0' in lines
    assert 'fabstir_part_up{part="chain"} 1.0' in lines
    assert 'fabstir_part_up{part="engine"} 0.0' in lines
    assert "fabstir_unacknowledged_tokens 12.0" in lines


def test_no_label_takes_a_value_outside_its_closed_set() -> None:
    """A session id as a label would grow the page without bound."""
    metrics = Metrics()
    for count in (metrics.success, metrics.failure, metrics.transaction):
        with pytest.raises(ValueError, match="session-17"):
            count("session-17")
    with pytest.raises(ValueError, match="session-17"):
        metrics.up("session-17", True)


def test_two_nodes_in_one_process_do_not_mix() -> None:
    """The demo runs two hosts."""
    one, other = Metrics(), Metrics()
    one.generation_tokens.inc(5)
    assert b"fabstir_generation_tokens_total 5.0" in one.expose()
    assert b"fabstir_generation_tokens_total 0.0" in other.expose()
