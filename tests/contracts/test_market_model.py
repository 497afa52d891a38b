"""JobMarketplace against `fabstir.protocol.settlement`, the model that host, renter and the in-memory chain use.

Whatever anybody does in whatever order, both accept the same calls, refuse with the same error, and hold, pay and slash the same money.
What can be done is in `market_rules`, `dispute_rules` and `epoch_rules`; here is what each run begins with.
"""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from fabstir.domain.ids import JobId
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import ClaimStage, ProofPolicy
from tests.contracts.epoch_rules import EpochRules
from tests.contracts.market_rules import HOST, RENTERS, SIGNER
from tests.machines import played

STAGES: Final = st.sampled_from(
    [
        ClaimStage.NONE,
        ClaimStage.CLAIMED,
        ClaimStage.CLAIMED,
        ClaimStage.DISPUTED,
        ClaimStage.ANSWERED,
        ClaimStage.ANSWERED,
    ]
)


class MarketMachine(EpochRules):
    """Anything that renters, hosts, arbiters and strangers can do."""

    @initialize(
        price=st.sampled_from([999_999, 1_234_567]),
        exposure=st.sampled_from([1, 64]),
        stake=st.sampled_from([250, 250, 250, 250, 1_000, 99]),
        stages=st.tuples(STAGES, STAGES),
        data=st.data(),
    )
    def begin(self, price: int, exposure: int, stake: int, stages: tuple[ClaimStage, ...], data: st.DataObject) -> None:
        """One good job of each kind, so that most calls have something to act on, as far as the runs' rules rarely get."""
        self.twin.stake(HOST.address, stake)
        for n, policy in enumerate(ProofPolicy):
            deposit, arbiter = data.draw(st.integers(100, 1_000)), data.draw(st.sampled_from([True, True, True, False]))
            native = policy is ProofPolicy.FALLBACK
            self.open(RENTERS[0], native, price, deposit, exposure, policy, arbiter, 7, None, "renter", "", 31 + n)
        for job, stage in zip(sorted(self.twin.model.jobs), stages, strict=True):
            self.bring(data, job, stage)

    def bring(self, data: st.DataObject, job: JobId, stage: ClaimStage) -> None:
        """A job to that stage, with or without a voucher before."""
        terms = self.twin.model.jobs[job].terms
        tokens = data.draw(st.sampled_from([0, 1, 63, 90]))
        if tokens and terms.policy is ProofPolicy.FALLBACK:
            transcript = self.streams[job].head(tokens)
            amount = cost(Tokens(tokens), terms.price)
            self.redeems(*self.signed(job, terms, HOST.address, amount, tokens, transcript, SIGNER))
        if stage >= ClaimStage.CLAIMED:
            self.proves(data, job, terms, 100, 3)
            self.claims(job, terms, HOST)
        if stage >= ClaimStage.DISPUTED and job in self.staged(ClaimStage.CLAIMED):
            self.disputes(job, terms, True)
        if stage >= ClaimStage.ANSWERED and job in self.staged(ClaimStage.DISPUTED):
            self.answers(job, terms, HOST, "")


MarketMachine.TestCase.settings = played(60, 40)
TestMarket = MarketMachine.TestCase
TestMarket.__doc__ = "The contract and the settlement model never differ."
