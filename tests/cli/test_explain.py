"""`fabstir explain`: the same tables that the code uses."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Fabstir

from fabstir.domain.errors import CATALOGUE


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_code_is_explained(fabstir: Fabstir, code: str) -> None:
    """Summary, whether trying again helps, and the next step; the same as JSON."""
    spec = CATALOGUE[code]
    told = fabstir("explain", "error", code).out
    assert spec.summary in told
    assert spec.next_step in told
    assert ("trying again may help" in told) is spec.retryable
    assert fabstir("explain", "error", code, "--json").json()["http_status"] == spec.http_status


def test_without_a_code_all_are_listed(fabstir: Fabstir) -> None:
    """The table is complete."""
    table = fabstir("explain", "error").out
    assert all(code in table for code in CATALOGUE)
    assert [row["code"] for row in fabstir("explain", "error", "--json").json()["errors"]] == list(CATALOGUE)


def test_a_code_that_does_not_exist_is_answered_with_similar_ones(fabstir: Fabstir) -> None:
    """A person mistypes; a program gets a code."""
    ran = fabstir("explain", "error", "job_close")
    assert ran.code == 1
    assert "similar: job_closed" in ran.err
