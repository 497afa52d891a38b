"""`fabstir explain`: the same tables that the code uses."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Fabstir

from fabstir.cli.settlement import BOND_WORDS, KIND_TITLES, PAY_SHORT, PAY_WORDS
from fabstir.domain.errors import CATALOGUE
from fabstir.protocol.matrix import MATRIX, RIGHTS, Bond, Ending, Kind, Pay


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
def test_every_ending_is_explained_for_each_kind_and_policy(fabstir: Fabstir, ending: Ending) -> None:
    """What the host gets, who calls what, where bond and stake go, how the job ends, and who may call these."""
    told = fabstir("explain", "settlement", ending.value).out
    told, rights = told.split("Who may call what:\n")
    cells = [cell for cell in MATRIX.values() if cell.ending is ending]
    for cell in cells:
        of_kind = told.split(f"{cell.kind}, {ending}: {cell.when}.\n")[1].split(f", {ending}: ")[0]
        section = of_kind.split(f"Proof policy `{cell.policy.name.lower()}`:\n")[1].split("Proof policy")[0]
        assert f"The host gets    {PAY_WORDS[cell.host_gets]}." in section
        assert ("The host calls   " + ", then ".join(cell.host_calls) in section) is bool(cell.host_calls)
        assert ("Others call      " + ", then ".join(cell.other_calls) in section) is bool(cell.other_calls)
        assert (cell.bond is Bond.NONE) or BOND_WORDS[cell.bond] in section
        assert ("slice" in section) is cell.slashed
        assert f"The job ends by  {' or '.join(cell.closed_by)}." in section
    calls = {call for cell in cells for call in (*cell.host_calls, *cell.other_calls, *cell.closed_by)}
    for right in RIGHTS:
        words = f"{right.call + ':':18} {right.who}; {right.start}; until {right.end}; {right.gas:,} gas."
        assert words in rights or right.call not in calls
    data = fabstir("explain", "settlement", ending.value, "--json").json()
    assert [(case["kind"], case["policy"]) for case in data["cases"]] == [
        (c.kind, c.policy.name.lower()) for c in cells
    ]
    for case, cell in zip(data["cases"], cells, strict=True):
        assert (case["host_gets"], case["bond"], case["host_slashed"]) == (cell.host_gets, cell.bond, cell.slashed)
        assert (case["host_calls"], case["other_calls"]) == (list(cell.host_calls), list(cell.other_calls))


def test_without_a_case_the_whole_matrix_is_printed(fabstir: Fabstir) -> None:
    """Every ending of both kinds and every call; as JSON every cell."""
    table = fabstir("explain", "settlement").out
    for kind in Kind:
        section = table.split(KIND_TITLES[kind])[1]
        assert all(ending.value in section for of, ending, _ in MATRIX if of is kind)
    assert all(right.call.value in table and f"{right.gas:,}" in table for right in RIGHTS)
    gas = {row["call"]: row["gas"] for row in fabstir("explain", "settlement", "--json").json()["rights"]}
    assert gas == {right.call.value: right.gas for right in RIGHTS}
    assert len(fabstir("explain", "settlement", "--json").json()["cases"]) == len(MATRIX)


def test_an_ending_may_be_written_with_hyphens_and_a_wrong_one_is_told(fabstir: Fabstir) -> None:
    """People type what they would read aloud."""
    told = fabstir("explain", "settlement", "host-vanished").out
    assert told.startswith("session, host_vanished: ") and "\nprompt, host_vanished: " in told
    assert "similar: host_vanished" in fabstir("explain", "settlement", "host_vanish").err


def test_every_pay_has_words() -> None:
    """A new kind of pay, of bond or of job is explained in the same change."""
    assert set(PAY_WORDS) == set(PAY_SHORT) == set(Pay)
    assert (set(BOND_WORDS), set(KIND_TITLES)) == (set(Bond), set(Kind))
