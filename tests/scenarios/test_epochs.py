"""A hundred sessions under the policy `required`, settled by one commitment, one proof and one redemption, on a real EVM."""

from __future__ import annotations

import msgspec
import pytest

from fabstir.chain.bindings import JobMarketplace
from fabstir.domain.ids import ZERO_ADDRESS, Hash32
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol import settlement
from fabstir.protocol.signing import job_id, keccak
from tests.contracts.dispute_rules import checkpoints_of
from tests.contracts.epoch_rules import Epoch, Served
from tests.contracts.evm import CallReverted
from tests.contracts.market import RICH, TwinMarket, abi_terms
from tests.contracts.market_rules import ACTORS, HOST, RENTERS, SIGNER
from tests.protocol.market import terms as some_terms

pytestmark = pytest.mark.scenario
SESSIONS = 100


def opened(twin: TwinMarket, n: int) -> Terms:
    """Another currency, another price for each; all of one host."""
    renter = RENTERS[n % 2].address
    agreed = msgspec.structs.replace(
        some_terms(),
        renter=renter, signer=SIGNER.address, host=HOST.address, token=ZERO_ADDRESS if n % 3 else twin.usdc,
        price=1_000_000 + n, policy=ProofPolicy.REQUIRED, expires_at=twin.evm.time + 86_400,
        salt=Hash32(n.to_bytes(32, "big")),
    )  # fmt: skip
    deposit = BaseUnits(10_000)
    data = JobMarketplace.encode_open(abi_terms(agreed), deposit)
    value = 0 if n % 3 == 0 else deposit
    assert twin.both(settlement.Open(renter, agreed, deposit), renter, data, value) is None
    return agreed


def test_a_hundred_sessions_are_paid_by_one_proof() -> None:
    """Each is paid what its renter signed for, to the last unit, by one commitment, one proof, and one redemption for each currency; then
    each closes with its refund."""
    twin = TwinMarket(ACTORS)
    sessions: list[Served] = []
    for n in range(SESSIONS):
        agreed = opened(twin, n)
        sessions.append((agreed, job_id(agreed), checkpoints_of(1 + 7 * n, 256), keccak(b"head%d" % n)))
    epoch = Epoch(twin, sessions, set())
    epoch.commit()
    parts = epoch.alike(epoch.places)
    assert len(parts) == 2
    assert epoch.redeem(parts[0]) == "NotCovered"
    epoch.prove()
    assert [epoch.redeem(part) for part in parts] == [None, None]
    twin.check()
    for n, (agreed, job, *_) in enumerate(sessions):
        state = twin.job(job)
        assert (state.signed, state.proven, state.owed) == (
            1 + 7 * n,
            1 + 7 * n,
            cost(Tokens(state.signed), agreed.price),
        )
        bare = twin.claim(agreed, job, 0, 0, Hash32(bytes(32)), None)
        call = settlement.CloseByHost(HOST.address, job)
        assert twin.both(call, HOST.address, JobMarketplace.encode_close_by_host(bare)) is None
    twin.check()
    assert RICH > twin.wealth[RENTERS[0].address, ZERO_ADDRESS] > RICH - 50 * 10_000


def test_what_an_epoch_does_not_hold_waits_for_the_next() -> None:
    """Sessions that were not in it, and tokens that came after it, are paid by the next one, which has all tokens of each session."""
    twin = TwinMarket(ACTORS)
    agreed = [opened(twin, n) for n in range(3)]
    proven: set[Hash32] = set()

    def epoch(counts: list[int]) -> Epoch:
        served = [
            (terms, job_id(terms), checkpoints_of(tokens, 256), keccak(b"%d" % tokens))
            for terms, tokens in zip(agreed, counts, strict=False)
        ]
        return Epoch(twin, served, proven)

    first, second = epoch([300, 20]), epoch([700, 20, 5])
    first.commit()
    first.prove()
    assert {second.redeem(part) for part in second.alike(second.places)} == {"NotCovered"}
    assert [first.redeem(part) for part in first.alike(first.places)] == [None, None]
    with pytest.raises(CallReverted, match="NoCommitment"):
        first.prove()
    second.commit()
    second.prove()
    assert [second.redeem(part) for part in second.alike([second.places[0], second.places[2]])] == [None, None]
    assert [twin.job(job_id(terms)).signed for terms in agreed] == [700, 20, 5]
    twin.check()
