"""What a renter wants of every job, where nothing else is said. Frozen; made by the composition root, or directly by a
program that uses the SDK.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, address
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import DEFAULT_BOND, DEFAULT_EXPOSURE, MIN_CHALLENGE_SECONDS, ProofPolicy
from fabstir.ops.config import ETH, USDC, Config, units
from fabstir.protocol.context.plan import ContextRequest
from fabstir.protocol.rungs import Rung, rung_of


class RenterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds where nothing else is said; amounts in base units of `token`."""

    budget: BaseUnits = BaseUnits(1_000_000)
    """Of one session: what its jobs can cost together, deposits of jobs that are still open included."""
    token: Address | None = None
    """What is paid with: ZERO_ADDRESS is the chain's coin; None: its USDC."""
    max_price: PricePerMTok | None = None
    arbiter: Address = ZERO_ADDRESS
    """Who rules in a dispute; hosts that do not accept it are not taken. ZERO_ADDRESS: nobody."""
    bond: BaseUnits = DEFAULT_BOND
    """What a dispute costs at least; a host may ask for more."""
    bond_max: BaseUnits | None = None
    """Hosts that ask for a larger bond are not taken."""
    policy: ProofPolicy = ProofPolicy.REQUIRED
    rung: Rung | None = None
    """Of the ladder of verification, where a session does not say another one; None: what `policy` implies."""
    exposure: Tokens = DEFAULT_EXPOSURE
    challenge: int = MIN_CHALLENGE_SECONDS
    """At least; a host may ask for more."""
    lifetime: int = 86_400
    """From opening a job to its expiry."""
    top_up: bool = True
    """Top a job up where its deposit runs out in the middle of something, as far as the budget goes; else a new job is opened."""
    dispute_above: BaseUnits = BaseUnits(100_000)
    """Dispute a host's claim of tokens that never arrived where they are worth so much; below, the bond and the gas cost more."""
    authorize: bool = False
    """Pay by a signed transfer (EIP-3009) instead of approve and open: one transaction instead of two. Needs the
    wallet's key.
    """
    require_encryption: bool = False
    """Take only hosts that hold sessions in an encrypted channel. Else it is used wherever a host offers it."""
    relay: bool = False
    """Let the host send that transfer to the contract, so that this account needs no ETH. Only hosts that do so are taken."""
    principal: Address | None = None
    """Whose money is spent, by the budget that it set for this account (`Delegation`); None: this account's own."""
    context: ContextRequest = ContextRequest()
    """What may be left out of a conversation that does not fit, where a session does not say otherwise."""
    answer_patience: float = 120.0
    """A host that sends nothing for so long while an answer is due is given up."""
    greeting_patience: float = 15.0
    """The same for `session_ready` and for the end of a session."""

    @classmethod
    def of(cls, config: Config) -> RenterSettings:
        """The settings that `config` stands for."""
        renter = config.renter
        native = renter.token == ETH
        token = None if renter.token == USDC else ZERO_ADDRESS if native else address(renter.token.lower())
        price = units(renter.max_price_per_mtok)
        return cls(
            budget=units(renter.budget_native if native else renter.budget),
            token=token,
            max_price=PricePerMTok(price) if price else None,
            arbiter=address(renter.arbiter.lower()) if renter.arbiter else ZERO_ADDRESS,
            bond=units(renter.bond_native if native else renter.bond),
            bond_max=units(renter.bond_max_native if native else renter.bond_max),
            policy=ProofPolicy[renter.policy.upper()],
            rung=None if renter.rung is None else rung_of(renter.rung),
            exposure=Tokens(renter.exposure),
            challenge=renter.challenge_s,
            lifetime=renter.lifetime_s,
            top_up=renter.top_up,
            dispute_above=units(renter.dispute_above_native if native else renter.dispute_above),
            authorize=renter.authorize,
            require_encryption=renter.require_encryption,
            relay=renter.relay,
            principal=address(renter.principal.lower()) if renter.principal else None,
            context=ContextRequest(
                strategy=renter.context_strategy,
                max_tokens=renter.context_max_tokens or None,
                max_messages=renter.context_max_messages or None,
            ),
        )
