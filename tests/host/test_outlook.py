"""The outlook: sums, one warning for each thing at risk, deadlines that go on while the chain is silent, and what is forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.host.settler_world import World
from tests.protocol.settling import START, Settling

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.host.health import ClaimsPart
from fabstir.host.outlook import Outlook
from fabstir.ops.metrics import Metrics
from fabstir.protocol.claims import Kind
from fabstir.protocol.host_log import HostLedger, JobAdmitted, SessionFinished, decode_event
from fabstir.testing.chain import INFO
from fabstir.testing.clock import ManualClock

ONE, OTHER = (Settling(ProofPolicy.FALLBACK, exposure=exposure).served_and_signed(100, 40) for exposure in (64, 65))
UNTIL = START + 900
CLAIMED = JobState(
    deposit=BaseUnits(1_000),
    owed=BaseUnits(140),
    held=BaseUnits(40),
    signed=ONE.ledger.acknowledged,
    held_until=UNTIL,
    stage=ClaimStage.CLAIMED,
)
OPEN = JobState(deposit=BaseUnits(1_000))


class View:
    """An outlook, its clock and its gauges."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics(ONE.terms.token)
        self.outlook = Outlook(self.metrics, self.clock)

    def passes(self, *looks: tuple[HostLedger, JobState], now: int = START) -> list[dict[str, Any]]:
        """One pass of a settler over these jobs; returns what was logged."""
        with capture_logs() as logged:
            for ledger, job in looks:
                self.outlook.note(ledger, job, now)
            self.outlook.keep({ledger.job for ledger, _ in looks})
        return [dict(told) for told in logged]

    def gauges(self, token: str = "usdc") -> dict[str, float | None]:
        """What is to be had now, held, disputed, all in one currency, and how much is near its deadline."""
        names = ("claimable_base_units", "claims_held_base_units", "claims_disputed_base_units")
        value = self.metrics.registry.get_sample_value
        amounts = {name: value(f"fabstir_{name}", {"token": token}) for name in names}
        return amounts | {"claims_expiring": value("fabstir_claims_expiring")}


def closing(job: JobState, left: int, stage: ClaimStage | None = None) -> JobState:
    changes = {"closing_at": START + left, "stage": job.stage if stage is None else stage}
    return JobState(**({name: getattr(job, name) for name in job.__struct_fields__} | changes))


def paid_in(token: Address) -> HostLedger:
    """The same job in another currency."""
    admitted, *rest = (decode_event(data) for data in ONE.journal)
    assert isinstance(admitted, JobAdmitted)
    terms = msgspec.structs.replace(admitted.terms, token=token)
    return HostLedger.replay([msgspec.structs.replace(admitted, terms=terms), *rest])


def test_the_gauges_are_sums_over_jobs() -> None:
    """What the contract would pay now, what is held, what is disputed, and how many deadlines are near."""
    view = View()
    view.passes((ONE.ledger, OPEN), (OTHER.ledger, CLAIMED))
    assert list(view.gauges().values()) == [140, 40, 0, 0]
    view.passes((ONE.ledger, closing(OPEN, 60)), (OTHER.ledger, closing(CLAIMED, 900, ClaimStage.DISPUTED)))
    assert list(view.gauges().values()) == [140, 0, 40, 2]
    view.passes((ONE.ledger, OPEN))
    assert list(view.gauges().values()) == [140, 0, 0, 0]
    view.passes()
    assert list(view.gauges().values()) == [0, 0, 0, 0]


def test_currencies_are_never_added_up() -> None:
    """A wei beside a millionth of a dollar would make both sums wrong. What nobody has is 0, and before the first look nothing is said."""
    view = View()
    assert list(view.gauges().values()) == [None, None, None, 0]
    in_eth, foreign = paid_in(ZERO_ADDRESS), paid_in(Address(b"\x77" * 20))
    view.passes((ONE.ledger, OPEN), (in_eth, CLAIMED), (foreign, closing(CLAIMED, 0, ClaimStage.DISPUTED)))
    assert list(view.gauges().values())[:3] == [140, 0, 0]
    assert list(view.gauges("eth").values())[:3] == [0, 40, 0]
    assert list(view.gauges("0x" + "77" * 20).values())[:3] == [None, None, 40]
    view.passes((in_eth, OPEN))
    assert [next(iter(view.gauges(token).values())) for token in ("usdc", "eth")] == [0, 140]
    assert list(view.gauges("0x" + "77" * 20).values())[2] == 0


def test_each_warning_comes_once() -> None:
    """However many passes find the same; another deadline of the same job is another warning."""
    view = View()
    near = (ONE.ledger, closing(OPEN, 60))
    warned = view.passes(near)
    assert [(told["event"], told["state"], told["amount"], told["expires_at"]) for told in warned] == [
        ("claim_at_risk", "redeem", 100, START + 60),
        ("claim_at_risk", "claim", 40, START + 60),
    ]
    assert {told["job_id"] for told in warned} == {ONE.ledger.job}
    assert {told["log_level"] for told in warned} == {"warning"}
    assert view.passes(near) == view.passes(near, now=START + 70) == []
    assert len(view.passes((ONE.ledger, closing(OPEN, 90)))) == 2


def test_a_dispute_is_told_though_its_deadline_is_far() -> None:
    """Once; and again where another claim of the job is disputed."""
    view = View()
    disputed = closing(CLAIMED, 0, ClaimStage.DISPUTED)
    assert [told["state"] for told in view.passes((ONE.ledger, disputed))] == ["answer"]
    assert view.passes((ONE.ledger, disputed)) == []


def test_what_is_collected_in_time_is_no_warning() -> None:
    """A close that was just asked for leaves the settler half of the window; what waits in a claim is nobody's concern."""
    view = View()
    assert view.passes((ONE.ledger, closing(OPEN, 900)), (OTHER.ledger, CLAIMED)) == []


def test_a_job_that_is_over_is_forgotten() -> None:
    """With its warnings, so that nothing grows."""
    view = View()
    view.passes((ONE.ledger, closing(OPEN, 60)), (OTHER.ledger, OPEN))
    view.passes((OTHER.ledger, OPEN))
    assert {row.job for row in view.outlook.rows()} == {OTHER.ledger.job}
    assert (view.outlook._warned, list(view.outlook._seen)) == (set(), [OTHER.ledger.job])


async def test_deadlines_go_on_while_the_chain_is_silent() -> None:
    """By the host's clock from the chain's last time, which may be another: what nobody can collect now is warned of, and in health."""
    view, chain_time = View(), START + 5_000
    deadline = closing(OPEN, 5_900)
    assert view.passes((ONE.ledger, deadline), now=chain_time) == []
    await view.clock.advance(449)
    assert view.outlook.part(0).expiring == 0
    await view.clock.advance(1)
    assert (view.outlook.part(1).expiring, view.gauges()["claims_expiring"]) == (2, 2)
    with capture_logs() as logged:
        view.outlook.keep({ONE.ledger.job})  # a pass in which the chain did not answer
    assert [told["event"] for told in logged] == ["claim_at_risk"] * 2


@pytest.mark.parametrize(
    ("job", "problems", "expected"),
    [
        (OPEN, 0, ClaimsPart(status="ok")),
        (OPEN, 3, ClaimsPart(status="ok", problems=3)),
        (CLAIMED, 0, ClaimsPart(status="ok", held=1)),
        (closing(CLAIMED, 0, ClaimStage.DISPUTED), 1, ClaimsPart(status="degraded", disputed=1, problems=1)),
        (closing(OPEN, 450), 0, ClaimsPart(status="degraded", expiring=2)),
        (closing(OPEN, -1), 0, ClaimsPart(status="degraded", expiring=2)),
    ],
)
def test_health_counts_what_needs_care(job: JobState, problems: int, expected: ClaimsPart) -> None:
    """A reason stands beside every `degraded`, and names the command to run."""
    view = View()
    view.passes((ONE.ledger, job))
    part = view.outlook.part(problems)
    assert ("fabstir claims" in part.reason) is (part.status == "degraded")
    shown = {name: getattr(part, name) for name in part.__struct_fields__ if name != "reason"}
    assert shown == {name: getattr(expected, name) for name in shown}


# -- as the settler uses it ------------------------------------------------------------------------------------------------


async def test_a_settler_that_collects_in_time_warns_of_nothing() -> None:
    """Closes that renters ask for, tails, redemptions in batches: a host at work is quiet."""
    market = World()
    for salt, policy in enumerate(ProofPolicy, 1):
        ledger = await market.job(served=140, signed=100, policy=policy, salt=salt, finished=False)
        await market.renter.request_close(f"close:{salt}", ledger.terms)
    with capture_logs() as logged:
        await market.settle()
    assert [told for told in logged if told["event"] == "claim_at_risk"] == []
    assert market.settler.claims() == ClaimsPart(status="ok", held=2)


async def test_a_settler_that_cannot_reach_the_chain_tells_what_will_be_lost() -> None:
    """From half of the window on, once; health names the jobs that are delayed."""
    market = World()
    ledger = await market.job(served=100, signed=100, policy=ProofPolicy.REQUIRED, finished=False)
    await market.settle(1)
    await market.renter.request_close("close", ledger.terms)
    market.prover.unavailable = True
    with capture_logs() as logged:
        await market.settle(2)
        market.chain.unreachable = True
        await market.clock.advance(ledger.terms.challenge // 2)
        for _ in range(3):
            await market.settler.settle()
    assert [told["state"] for told in logged if told["event"] == "claim_at_risk"] == [Kind.PROVE.value]
    part = market.settler.claims()
    assert (part.status, part.expiring, part.problems) == ("degraded", 1, 1)


async def test_what_is_earned_is_counted_after_the_fee() -> None:
    """What was seen credited while the job ran, and what the end added; a proof counts the tokens that it added."""
    market, metrics = World(redeem_above=BaseUnits(50_000)), Metrics(INFO.usdc)
    market.settler.count_in(metrics)
    ledger = await market.job(served=40, signed=30, finished=False)
    await market.settle()
    await market.sign(ledger, 40)
    assert ledger.unproven == 10
    async with market.book.exclusive(ledger):
        await market.book.record(ledger, SessionFinished("ended by the renter"))
    await market.settle()
    earned, in_eth = (
        metrics.registry.get_sample_value("fabstir_earned_base_units_total", {"token": token})
        for token in ("usdc", "eth")
    )
    assert in_eth == 0
    assert earned == await market.host.earnings(INFO.usdc, market.host.account) == 76_000
    assert metrics.registry.get_sample_value("fabstir_proven_tokens_total") == 40
    assert metrics.registry.get_sample_value("fabstir_prove_seconds_count") == 2
    assert (ledger.unproven, metrics.registry.get_sample_value("fabstir_unpaid_tokens_total")) == (0, 0)


async def test_what_nobody_paid_for_and_proofs_that_failed_are_counted() -> None:
    """A tail that no stake covered; each try of a prover that is down."""
    market, metrics = World(staked=False), Metrics()
    market.settler.count_in(metrics)
    await market.job(served=40, signed=30)
    market.prover.unavailable = True
    await market.settle(2)
    assert metrics.registry.get_sample_value("fabstir_proof_failures_total") == 2
    market.prover.unavailable = False
    await market.settle()
    assert metrics.registry.get_sample_value("fabstir_unpaid_tokens_total") == 10
