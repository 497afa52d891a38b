"""The board in memory, call by call: what the contract takes and with which name it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.protocol.prompting import ASSIGNER, BOARD, MODEL, RENTER, START, TOKEN, host_address, terms

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptState, PromptStatus, PromptTerms
from fabstir.protocol.prompt_signing import market_terms, prompt_id
from fabstir.protocol.settlement import Reverted
from fabstir.testing.memory_board import MAX_DURATION, MemoryBoard

ONE, TWO, THREE = (host_address(n) for n in range(3))
STRANGER = Address(b"\x77" * 20)
CID, HASH = Cid(b"\x01" * 32), Hash32(b"\x02" * 32)


@pytest.fixture
def board() -> MemoryBoard:
    found = MemoryBoard(BOARD)
    found.now = START
    for host, price in ((ONE, 1_000_000), (TWO, 2_000_000), (THREE, 2_000_001)):
        found.register(host, MODEL, TOKEN, PricePerMTok(price))
    return found


def refused(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(Reverted) as caught:
        call()
    assert caught.value.name == name


def status(board: MemoryBoard, wanted: PromptTerms | None = None) -> PromptStatus:
    return board.status(prompt_id(wanted or terms()))


@pytest.mark.parametrize(
    "changes",
    [
        {"signer": ZERO_ADDRESS},
        {"bond": BaseUnits(0)},
        {"max_tokens": Tokens(0)},
        {"max_tokens": Tokens(4_097)},
        {"deadline": START},
        {"deadline": START + MAX_DURATION + 1},
        {"execute_seconds": 29},
        {"challenge": 899},
        {"challenge": 3 * 86_400 + 1},
        {"policy": 2},
        {"ceiling": PricePerMTok(9_999)},
        {"ceiling": PricePerMTok(2**96 - 1), "max_tokens": Tokens(4_096)},
    ],
)
def test_terms_that_no_prompt_may_have(board: MemoryBoard, changes: dict) -> None:
    """One step outside of each bound; nothing is taken."""
    refused("BadPrompt", lambda: board.post(RENTER, terms(**changes)))
    assert board.deposited == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": Tokens(4_096)},
        {"deadline": START + 1},
        {"deadline": START + MAX_DURATION},
        {"execute_seconds": 30},
        {"challenge": 3 * 86_400},
        {"ceiling": PricePerMTok(10_000)},
    ],
)
def test_terms_at_the_bounds(board: MemoryBoard, changes: dict) -> None:
    """Taken."""
    board.post(RENTER, terms(**changes))
    assert status(board, terms(**changes)).state is PromptState.POSTED


def test_posting(board: MemoryBoard) -> None:
    """By the renter, once, also after it ended."""
    refused("NotRenter", lambda: board.post(STRANGER, terms()))
    board.post(RENTER, terms())
    assert status(board) == PromptStatus(state=PromptState.POSTED, escrow=BaseUnits(200))
    refused("PromptExists", lambda: board.post(RENTER, terms()))
    board.cancel(RENTER, terms())
    refused("PromptExists", lambda: board.post(RENTER, terms()))


def test_posting_for_a_renter(board: MemoryBoard) -> None:
    """Within a budget, for a time, in a token."""
    refused("BadDelegate", lambda: board.set_delegate(RENTER, RENTER, TOKEN, 1, START + 9))
    refused("BadDelegate", lambda: board.set_delegate(RENTER, STRANGER, ZERO_ADDRESS, 1, START + 9))
    refused("OverBudget", lambda: board.post_as_delegate(STRANGER, terms()))
    board.set_delegate(RENTER, STRANGER, TOKEN, 399, START + 9)
    board.post_as_delegate(STRANGER, terms())
    refused("PromptExists", lambda: board.post_as_delegate(STRANGER, terms()))
    refused("OverBudget", lambda: board.post_as_delegate(STRANGER, terms(1)))
    refused("BadPrompt", lambda: board.post_as_delegate(STRANGER, terms(token=ZERO_ADDRESS)))
    board.set_delegate(RENTER, STRANGER, TOKEN, 399, START)
    refused("DelegationExpired", lambda: board.post_as_delegate(STRANGER, terms(1)))


def test_claiming(board: MemoryBoard) -> None:
    """By the host or its delegate, at the registry's price, below the ceiling, until it lapses."""
    refused("NotPosted", lambda: board.claim(ONE, terms(), ONE))
    board.post(RENTER, terms())
    refused("NotHost", lambda: board.claim(STRANGER, terms(), ONE))
    refused("HostNotActive", lambda: board.claim(STRANGER, terms(), STRANGER))
    refused("PriceAboveCeiling", lambda: board.claim(THREE, terms(), THREE))
    board.claim(ONE, terms(), ONE)
    assert status(board) == PromptStatus(
        state=PromptState.CLAIMED, host=ONE, until=START + 60, price=PricePerMTok(1_000_000), escrow=BaseUnits(200)
    )
    for host in (ONE, TWO):
        refused("AlreadyClaimed", lambda: board.claim(host, terms(), host))  # noqa: B023
    board.now = START + 60
    board.set_claim_delegate(TWO, STRANGER, START + 61)
    board.claim(STRANGER, terms(), TWO)
    assert (status(board).host, status(board).price) == (TWO, 2_000_000)
    board.now = START + 61
    refused("NotHost", lambda: board.release(STRANGER, terms()))
    refused("BadDelegate", lambda: board.set_claim_delegate(TWO, TWO, START + 61))


def test_who_may_not_claim(board: MemoryBoard) -> None:
    """A host that does not offer the model for the token, and the arbiter."""
    other = terms(token=Address(b"\x01" * 20))
    board.post(RENTER, other)
    refused("ModelNotOffered", lambda: board.claim(ONE, other, ONE))
    judged = terms(arbiter=ONE)
    board.post(RENTER, judged)
    refused("HostIsArbiter", lambda: board.claim(ONE, judged, ONE))


def test_a_claim_ends_with_the_deadline(board: MemoryBoard) -> None:
    """It lasts no longer, and afterwards there is none."""
    board.post(RENTER, terms())
    board.now = START + 3_590
    board.claim(ONE, terms(), ONE)
    assert status(board).until == START + 3_600
    board.now = START + 3_600
    refused("PastDeadline", lambda: board.claim(TWO, terms(), TWO))
    refused("PastDeadline", lambda: board.assign(RENTER, terms(), TWO))
    refused("NotClaimed", lambda: board.complete(ONE, terms(), Tokens(1), CID, HASH))


def test_assigning(board: MemoryBoard) -> None:
    """By renter or assigner, who may change their mind; it keeps others away for a while, and not from a host at work."""
    board.post(RENTER, terms())
    refused("NotAssigner", lambda: board.assign(STRANGER, terms(), ONE))
    refused("PriceAboveCeiling", lambda: board.assign(RENTER, terms(), THREE))
    board.assign(RENTER, terms(), ONE)
    board.assign(ASSIGNER, terms(), TWO)
    assert status(board) == PromptStatus(state=PromptState.RESERVED, host=TWO, until=START + 60, escrow=BaseUnits(200))
    refused("Reserved", lambda: board.claim(ONE, terms(), ONE))
    refused("NotClaimed", lambda: board.complete(TWO, terms(), Tokens(1), CID, HASH))
    refused("NotClaimed", lambda: board.release(TWO, terms()))
    board.claim(TWO, terms(), TWO)
    refused("AlreadyClaimed", lambda: board.assign(RENTER, terms(), ONE))
    board.now = START + 60
    board.assign(RENTER, terms(), ONE)
    board.now = START + 120
    board.claim(TWO, terms(), TWO)
    assert status(board).state is PromptState.CLAIMED


def test_assigning_many(board: MemoryBoard) -> None:
    """All or none."""
    for number in (1, 2):
        board.post(RENTER, terms(number))
    refused("PriceAboveCeiling", lambda: board.assign_many(RENTER, ((terms(1), ONE), (terms(2), THREE))))
    assert status(board, terms(1)).state is PromptState.POSTED
    board.assign_many(RENTER, ((terms(1), ONE), (terms(2), TWO)))
    assert status(board, terms(1)).host == ONE and status(board, terms(2)).host == TWO


def test_releasing(board: MemoryBoard) -> None:
    """By the host that holds it, while it does; then it is as if just posted."""
    board.post(RENTER, terms())
    refused("NotClaimed", lambda: board.release(ONE, terms()))
    board.claim(ONE, terms(), ONE)
    refused("NotHost", lambda: board.release(TWO, terms()))
    board.release(ONE, terms())
    assert status(board) == PromptStatus(state=PromptState.POSTED, escrow=BaseUnits(200))
    board.claim(TWO, terms(), TWO)
    board.now = START + 60
    refused("NotClaimed", lambda: board.release(TWO, terms()))


def test_completing(board: MemoryBoard) -> None:
    """Opens the job of exactly the answer, pays the rest back; the job's terms follow from prompt and event."""
    board.post(RENTER, terms())
    board.claim(ONE, terms(), ONE)
    for tokens in (0, 101):
        refused("TokensOutOfRange", lambda: board.complete(ONE, terms(), Tokens(tokens), CID, HASH))  # noqa: B023
    refused("NotHost", lambda: board.complete(TWO, terms(), Tokens(50), CID, HASH))
    job = board.complete(ONE, terms(), Tokens(50), CID, HASH)
    opened, deposit = board.jobs[job]
    done = board.completion(prompt_id(terms()))
    assert done is not None and market_terms(BOARD, terms(), done) == opened
    assert (deposit, board.refunded, board.escrowed) == (50, {(RENTER, TOKEN): 150}, {TOKEN: 0})
    assert (opened.exposure, opened.expires_at, done.result_cid, done.result_hash) == (50, START + 86_400, CID, HASH)
    assert status(board) == PromptStatus(state=PromptState.COMPLETED, host=ONE, price=PricePerMTok(1_000_000))
    for call in (
        lambda: board.complete(ONE, terms(), Tokens(50), CID, HASH),
        lambda: board.claim(TWO, terms(), TWO),
        lambda: board.cancel(RENTER, terms()),
        lambda: board.refund(terms()),
    ):
        refused("NotPosted", call)


def test_an_answer_that_costs_nothing(board: MemoryBoard) -> None:
    """Opens no job."""
    board.register(ONE, MODEL, TOKEN, PricePerMTok(999_999))
    board.post(RENTER, terms())
    board.claim(ONE, terms(), ONE)
    refused("NothingToPay", lambda: board.complete(ONE, terms(), Tokens(1), CID, HASH))
    board.complete(ONE, terms(), Tokens(2), CID, HASH)


def test_cancelling(board: MemoryBoard) -> None:
    """By the renter, all of it, while no host works; a reservation does not stop it."""
    board.post(RENTER, terms())
    refused("NotRenter", lambda: board.cancel(ASSIGNER, terms()))
    board.claim(ONE, terms(), ONE)
    refused("AlreadyClaimed", lambda: board.cancel(RENTER, terms()))
    board.release(ONE, terms())
    board.assign(RENTER, terms(), ONE)
    board.cancel(RENTER, terms())
    assert (board.refunded, status(board)) == ({(RENTER, TOKEN): 200}, PromptStatus(state=PromptState.CANCELLED))


def test_refunding(board: MemoryBoard) -> None:
    """From the deadline on, not before."""
    board.post(RENTER, terms())
    board.now = START + 3_599
    board.claim(ONE, terms(), ONE)
    refused("TooEarly", lambda: board.refund(terms()))
    board.now = START + 3_600
    board.refund(terms())
    assert (board.refunded, status(board)) == ({(RENTER, TOKEN): 200}, PromptStatus(state=PromptState.REFUNDED))
    refused("NotPosted", lambda: board.refund(terms()))


def test_the_events_are_the_contracts(board: MemoryBoard) -> None:
    """Each change tells its name and its fields."""
    board.post(RENTER, terms())
    board.assign(RENTER, terms(), ONE)
    board.claim(ONE, terms(), ONE)
    board.release(ONE, terms())
    board.claim(TWO, terms(), TWO)
    board.complete(TWO, terms(), Tokens(50), CID, HASH)
    names = ["PromptPosted", "PromptAssigned", "PromptClaimed", "PromptReleased", "PromptClaimed", "PromptCompleted"]
    assert [event.name for event in board.events] == names
    assert [event.host for event in board.events] == [ZERO_ADDRESS, ONE, ONE, ONE, TWO, TWO]
    assert [event.amount for event in board.events] == [200, 0, 0, 0, 0, 100]
    assert board.events[0].terms == terms() and board.events[-1].completion == board.completion(prompt_id(terms()))
