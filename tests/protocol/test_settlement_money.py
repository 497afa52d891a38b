"""Money in the settlement model, whatever is called in whatever order (hypothesis): conserved, and never taken back from a host."""

from __future__ import annotations

from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, Terms
from fabstir.protocol.settlement import (
    AnswerDispute,
    Call,
    ClaimProven,
    CloseByHost,
    CloseCooperative,
    CommitProof,
    Contradict,
    Dispute,
    Finalize,
    MarketState,
    Open,
    Redeem,
    RequestClose,
    Reverted,
    Rule,
    SettleClaim,
    SubmitProof,
    TopUp,
    Withdraw,
    apply,
)
from fabstir.protocol.signing import job_id
from tests.protocol.moves import (
    ARBITER,
    BLOCK,
    FALLBACK,
    HOST,
    NOW,
    OTHER,
    RENTER,
    ROOT,
    RULED,
    STAKE,
    STRANGER,
    TERMS,
    TOKEN,
    TREASURY,
    after,
    market,
    prove,
    redeem,
)

WINDOW: Final = TERMS.challenge
AGREED: Final = (RULED, TERMS, msgspec.structs.replace(FALLBACK, arbiter=ARBITER))
counts = st.sampled_from([0, 1, 99, 100, 101, 130, 163, 164, 165, 200, 300, 1_000]).map(Tokens)
sides = st.sampled_from([HOST, RENTER, ARBITER, STRANGER])


def _voucher(agreed: Terms, tokens: Tokens) -> Redeem:
    return redeem(tokens, agreed)


def _calls(agreed: Terms) -> st.SearchStrategy[Call]:
    job: JobId = job_id(agreed)
    return st.one_of(
        st.just(ClaimProven(HOST, job)),
        st.just(Dispute(RENTER, job)),
        st.builds(Contradict, st.just(job), counts, sides),
        st.builds(AnswerDispute, st.just(HOST), st.just(job), st.sampled_from(["", "", "OpeningMismatch"])),
        st.builds(Rule, st.sampled_from([ARBITER, STRANGER]), st.just(job), st.booleans()),
        st.just(SettleClaim(job)),
        st.builds(_voucher, st.just(agreed), counts),
        st.builds(CommitProof, st.just(HOST), st.just(job), counts, st.sampled_from([ROOT, OTHER])),
        st.builds(SubmitProof, st.just(job), counts, st.just(ROOT), st.booleans()),
        st.builds(TopUp, st.just(job), st.integers(0, 500).map(BaseUnits)),
        st.builds(CloseByHost, st.just(HOST), st.just(job), st.none() | st.builds(_voucher, st.just(agreed), counts)),
        st.builds(lambda n: CloseCooperative(RENTER, job, BaseUnits(n), n, HOST), counts),
        st.just(RequestClose(RENTER, job)),
        st.just(Finalize(STRANGER, job)),
        st.builds(Withdraw, st.sampled_from([HOST, TREASURY]), st.just(TOKEN)),
    )


def _check_money(state: MarketState, paid_in: int, withdrawn: int) -> None:
    """Every unit that came in is in somebody's hands or in a job, a claim, a bond or a ledger."""
    assert paid_in == state.held[TOKEN] + sum(state.repaid.values()) + withdrawn
    jobs = [(account.terms, account.state) for account in state.jobs.values()]
    bonds = sum(t.bond for t, job in jobs if job.stage in (ClaimStage.DISPUTED, ClaimStage.ANSWERED))
    kept = sum(job.held if job.closed else job.deposit - job.owed + job.held for _, job in jobs)
    assert state.held[TOKEN] == kept + bonds + sum(state.earnings.values())
    for _, job in jobs:
        undecided = job.stage in (ClaimStage.CLAIMED, ClaimStage.DISPUTED, ClaimStage.ANSWERED)
        assert 0 <= job.held <= job.owed <= job.deposit
        assert (job.held > 0, job.held_tokens > 0, job.held_until > 0) == (undecided,) * 3
    assert 0 <= state.stakes[HOST] <= STAKE and min(state.earnings.values(), default=0) >= 0
    assert sum(state.compensated.values()) <= STAKE - state.stakes[HOST]


def _moves(agreed: Terms) -> st.SearchStrategy[tuple[Terms, list[tuple[Call, int, int]]]]:
    """A job's terms, and calls with the seconds and blocks before each."""
    move = st.tuples(_calls(agreed), st.sampled_from([0, 1, WINDOW - 1, WINDOW]), st.sampled_from([0, 3]))
    return st.tuples(st.just(agreed), st.lists(move, min_size=10, max_size=30))


@given(played=st.one_of([_moves(agreed) for agreed in AGREED]))
def test_money_is_conserved(played: tuple[Terms, list[tuple[Call, int, int]]]) -> None:
    """From two claims on, whatever is called at whatever time: nothing is made, nothing is lost, what a host was credited stays."""
    (agreed, moves), (now, block, paid_in, withdrawn) = played, (NOW, BLOCK, 0, 0)
    state = market()
    for terms in (agreed, msgspec.structs.replace(agreed, salt=OTHER)):
        state = prove(after(state, Open(RENTER, terms, BaseUnits(1_000))), terms, 200)
        state = after(state, redeem(100, terms), ClaimProven(HOST, job_id(terms)))
        paid_in += 1_000
    for call, seconds, blocks in moves:
        now, block, before = now + seconds, block + 1 + blocks, state
        try:
            state = apply(state, call, now, block)
        except Reverted:
            continue
        paid_in += call.amount if isinstance(call, TopUp) else agreed.bond if isinstance(call, Dispute) else 0
        if isinstance(call, Withdraw):
            withdrawn += before.earnings[call.sender, TOKEN]
        else:
            assert all(state.earnings[name] >= amount for name, amount in before.earnings.items())
        _check_money(state, paid_in, withdrawn)
