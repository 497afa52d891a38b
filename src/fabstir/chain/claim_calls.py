"""Claims of unsigned tokens and their disputes, as one account carries them out (`Disputes.sol`)."""

from __future__ import annotations

from typing import Final

from fabstir.chain import bindings
from fabstir.chain.calls import Calls
from fabstir.chain.conversion import abi_opening, abi_terms
from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.ports.chain import TxResult
from fabstir.protocol.opening import Opening

_MARKET: Final = bindings.JobMarketplace


class ClaimCalls(Calls):
    """Part of `MarketClient`."""

    async def claim_proven(self, key: str, terms: Terms) -> TxResult:
        """Claim proven tokens that the renter did not sign, at most W."""
        return await self._market(key, _MARKET.encode_claim_proven(abi_terms(terms)))

    async def settle_claim(self, key: str, terms: Terms) -> TxResult:
        """The outcome of a stage's silence."""
        return await self._market(key, _MARKET.encode_settle_claim(abi_terms(terms)))

    async def dispute(self, key: str, terms: Terms) -> TxResult:
        """Object to a claim; of an ERC-20 the market must be allowed to take the bond."""
        value = terms.bond if terms.token == ZERO_ADDRESS else 0
        return await self._market(key, _MARKET.encode_dispute(abi_terms(terms)), value)

    async def contradict(
        self, key: str, terms: Terms, amount: BaseUnits, tokens: Tokens, host_signature: bytes
    ) -> TxResult:
        """Show what the host signed at the end."""
        return await self._market(key, _MARKET.encode_contradict(abi_terms(terms), amount, tokens, host_signature))

    async def answer_dispute(self, key: str, terms: Terms, opening: Opening) -> TxResult:
        """Open the records."""
        return await self._market(key, _MARKET.encode_answer_dispute(abi_terms(terms), abi_opening(opening)))

    async def rule(self, key: str, terms: Terms, for_host: bool) -> TxResult:
        """Decide, as the arbiter of the terms."""
        return await self._market(key, _MARKET.encode_rule(abi_terms(terms), for_host))
