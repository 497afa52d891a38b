"""Whatever ezkl throws is an error of ours, panics of its Rust code too; what is not ezkl's passes."""

from __future__ import annotations

import ezkl
import pytest

from fabstir.domain.errors import LocalFault
from fabstir.proofs.ezkl_calls import translated


def test_a_panic_is_a_named_error() -> None:
    """A panic is no Exception in Python, so that nothing else in the worker would catch it: the process would end with the job."""
    with pytest.raises(BaseException, match="Invalid string length") as bare:
        ezkl.felt_to_int("")
    assert not isinstance(bare.value, Exception)
    with pytest.raises(LocalFault, match=r"proof_failed.*panic: .*Invalid string length"), translated("proof_failed"):
        ezkl.felt_to_int("")


def test_an_error_is_a_named_error() -> None:
    """With its first line, which says what was wrong."""
    with pytest.raises(LocalFault, match=r"proof_failed.*setup"), translated("proof_failed"):
        ezkl.setup("/nowhere/circuit", "/nowhere/vk", "/nowhere/pk", "/nowhere/srs")


@pytest.mark.parametrize("other", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_is_no_failed_proof(other: type[BaseException]) -> None:
    """Such exceptions are neither errors nor panics."""
    with pytest.raises(other), translated("proof_failed"):
        raise other
