"""`fabstir explain`: the same tables that the code uses."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Fabstir

from fabstir.cli.settlement import PAY_SHORT, PAY_WORDS
from fabstir.domain.errors import CATALOGUE
from fabstir.protocol.matrix import MATRIX, RIGHTS, Ending, Pay


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


@pytest.mark.parametrize("ending", Ending)
def test_every_ending_is_explained_under_both_policies(fabstir: Fabstir, ending: Ending) -> None:
    """What the host gets, what it calls, how the job ends, and who may call these."""
    told = fabstir("explain", "settlement", ending.value).out
    cells = [cell for cell in MATRIX.values() if cell.ending is ending]
    assert len(cells) == 2
    for cell in cells:
        assert cell.when in told
        assert f"Proof policy `{cell.policy.name.lower()}`" in told
        assert PAY_WORDS[cell.host_gets] in told
        for call in (*cell.host_calls, *cell.closed_by):
            right = next(right for right in RIGHTS if right.call is call)
            assert f"{call.value}:" in told
            assert right.end in told
    data = fabstir("explain", "settlement", ending.value, "--json").json()
    assert [case["host_gets"] for case in data["cases"]] == [cell.host_gets.value for cell in cells]


def test_without_a_case_the_whole_matrix_is_printed(fabstir: Fabstir) -> None:
    """Every ending and every call; as JSON every cell."""
    table = fabstir("explain", "settlement").out
    assert all(ending.value in table for ending in Ending)
    assert all(right.call.value in table for right in RIGHTS)
    assert len(fabstir("explain", "settlement", "--json").json()["cases"]) == len(MATRIX)


def test_an_ending_may_be_written_with_hyphens_and_a_wrong_one_is_told(fabstir: Fabstir) -> None:
    """People type what they would read aloud."""
    assert fabstir("explain", "settlement", "host-vanished").out.startswith("host_vanished: ")
    assert "similar: host_vanished" in fabstir("explain", "settlement", "host_vanish").err


def test_every_pay_has_words() -> None:
    """A new kind of pay is explained in the same change."""
    assert set(PAY_WORDS) == set(PAY_SHORT) == set(Pay)
