"""A prompt's id is what abi.encode and keccak make of the contract's struct; its market job has the terms that the board opens."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak as reference_keccak
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, JobId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptTerms
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol.prompt_signing import escrow_of, job_salt, market_terms, prompt_id
from fabstir.protocol.settlement import MarketState, Open, Reverted, apply
from fabstir.protocol.signing import job_id
from tests.protocol.prompting import BOARD, START, host_address, terms

STRUCT = (
    "(address,address,address,address,address,uint96,uint96,uint32,uint40,uint32,uint32,uint8,bytes32,bytes32,bytes32)"
)
words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20)
amounts = st.integers(0, 2**96 - 1)
counts = st.integers(0, 2**32 - 1)
all_terms = st.builds(
    PromptTerms,
    renter=addresses,
    signer=addresses,
    token=addresses,
    assigner=addresses,
    arbiter=addresses,
    ceiling=amounts,
    bond=amounts,
    max_tokens=counts,
    deadline=st.integers(0, 2**40 - 1),
    execute_seconds=counts,
    challenge=counts,
    policy=st.sampled_from(ProofPolicy),
    model_id=words,
    prompt_cid=words,
    salt=words,
)


@given(terms=all_terms)
def test_the_id_is_that_of_the_contract(terms: PromptTerms) -> None:
    """Fifteen words in the order of the struct, by another implementation of the ABI."""
    fields = [getattr(terms, name) for name in PromptTerms.__struct_fields__]
    assert prompt_id(terms) == reference_keccak(encode([STRUCT], [tuple(fields)]))


def test_a_golden_id() -> None:
    """For whoever writes another SDK: these terms have this id."""
    assert prompt_id(terms()).hex() == "2eb3efe626260fee877bd413d3b446ea81d2882cc52a28a59b28459569a0eeeb"


def test_every_field_counts() -> None:
    """Two prompts that differ in one field are two prompts."""
    other: dict[str, Any] = {
        "renter": b"\x01" * 20,
        "signer": b"\x01" * 20,
        "token": b"\x01" * 20,
        "assigner": b"\x01" * 20,
        "arbiter": b"\x01" * 20,
        "ceiling": 7,
        "bond": 7,
        "max_tokens": 7,
        "deadline": 7,
        "execute_seconds": 7,
        "challenge": 7,
        "policy": ProofPolicy.REQUIRED,
        "model_id": b"\x01" * 32,
        "prompt_cid": b"\x01" * 32,
        "salt": b"\x01" * 32,
    }
    assert set(other) == set(PromptTerms.__struct_fields__)
    assert len({prompt_id(terms(**{name: value})) for name, value in other.items()} | {prompt_id(terms())}) == 16


def test_the_escrow_is_the_longest_answer_at_the_highest_price() -> None:
    """100 tokens at 2 units; what is below one unit is the renter's."""
    assert escrow_of(terms()) == 200
    assert escrow_of(terms(max_tokens=3, ceiling=PricePerMTok(999_999))) == 2


def test_the_salt_lets_the_board_open_the_job() -> None:
    """The board's address, the mark of an opener, the last eight bytes of the id: `PromptBoard.saltOf`. Nobody else may."""
    prompt = prompt_id(terms())
    assert job_salt(BOARD, prompt) == BOARD + b"\xff\xff\xff\xff" + prompt[-8:]


def test_the_market_job_is_the_answer() -> None:
    """Every field of its terms; the market takes them from the board, and from nobody else."""
    wanted = terms(arbiter=Address(b"\x21" * 20), policy=ProofPolicy.REQUIRED)
    done = PromptCompletion(
        job=JobId(bytes(32)),
        host=host_address(1),
        tokens=Tokens(50),
        price=PricePerMTok(1_000_000),
        result_cid=Cid(bytes(32)),
        result_hash=bytes(32),  # type: ignore[arg-type]
        expires_at=START + 86_400,
    )
    job = market_terms(BOARD, wanted, done)
    assert job == Terms(
        renter=wanted.renter,
        signer=wanted.signer,
        host=host_address(1),
        token=wanted.token,
        arbiter=Address(b"\x21" * 20),
        price=PricePerMTok(1_000_000),
        bond=BaseUnits(100_000),
        expires_at=START + 86_400,
        challenge=900,
        exposure=Tokens(50),
        policy=ProofPolicy.REQUIRED,
        model_id=wanted.model_id,
        salt=job_salt(BOARD, prompt_id(wanted)),
    )
    empty = MarketState(Address(b"\x99" * 20))
    with pytest.raises(Reverted):
        apply(empty, Open(wanted.renter, job, BaseUnits(50)), START, 1)
    state = apply(empty, Open(BOARD, job, BaseUnits(50)), START, 1)
    assert state.jobs[job_id(job)].state.deposit == 50
