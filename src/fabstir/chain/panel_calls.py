"""A panel of verifiers, as one account uses it (`ArbiterPanel.sol`): make it, read it, vote. Decides nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from fabstir.chain import bindings
from fabstir.chain.calls import Calls, ask
from fabstir.chain.code_check import check_code, code_at
from fabstir.chain.conversion import abi_terms
from fabstir.chain.deployer import is_done, see_done
from fabstir.chain.deployment import FACTORY, FACTORY_CODE, Create
from fabstir.chain.panel import CONTRACT
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, to_hex
from fabstir.domain.terms import Terms
from fabstir.ports.chain import TxResult
from fabstir.protocol.panel import Panel, Vote, Votes

_PANEL: Final = bindings.ArbiterPanel

VOTE_GAS: Final = 400_000
"""Whether a vote decides is known when it is mined: another may come first, and then it needs the gas of a ruling, too."""


class PanelCalls(Calls):
    """Part of `MarketClient`."""

    async def panel(self, place: Address) -> Panel:
        """The panel at this address. Raises ChainFault: `chain_mismatch` where nothing is there, `contract_mismatch` where it is
        something else, or a panel of another market."""
        await check_code(self._rpc, self._info.chain_id, {CONTRACT: place}, {})
        market, members, threshold = await asyncio.gather(
            self._call(place, _PANEL.encode_market(), _PANEL.decode_market),
            self._call(place, _PANEL.encode_members(), _PANEL.decode_members),
            self._call(place, _PANEL.encode_threshold(), _PANEL.decode_threshold),
        )
        if market != self._info.market:
            raise error("contract_mismatch", f"the panel at {to_hex(place)} is of the market {to_hex(market)}")
        return Panel(address=place, members=members, threshold=threshold)

    async def votes(self, panel: Address, job: JobId) -> Votes:
        """In the dispute that the job is in now; none where it is in none that was answered."""
        counts, voted = await asyncio.gather(
            self._call(panel, _PANEL.encode_votes_of(job), _PANEL.decode_votes_of),
            self._call(panel, _PANEL.encode_has_voted(job, self._account), _PANEL.decode_has_voted),
        )
        return Votes(for_host=counts.for_host, for_renter=counts.for_renter, voted=voted)

    async def make_panel(self, key: str, creation: Create) -> TxResult | None:
        """None where it is there already. Raises ChainFault (`chain_mismatch` where the chain has no factory)."""
        if await is_done(self._rpc, creation):
            return None
        if await code_at(self._rpc, FACTORY) != FACTORY_CODE:
            raise error("chain_mismatch", f"the CREATE2 factory is not at {to_hex(FACTORY)} on this chain")
        sent = await self._send(key, creation.to, creation.data)
        await see_done(self._rpc, creation)
        return sent

    async def vote(
        self, key: str, panel: Address, terms: Terms, for_host: bool, evidence: Hash32
    ) -> tuple[TxResult, Vote]:
        """Say, as a member, who is right; the vote that reaches the threshold rules."""
        sent = await self._send(key, panel, _PANEL.encode_vote(abi_terms(terms), for_host, evidence))
        return sent, await self._counted(panel, sent)

    async def _counted(self, panel: Address, sent: TxResult) -> Vote:
        """From the transaction's own event: what it did, whoever has voted since."""
        receipt = await ask(self._rpc, "eth_getTransactionReceipt", to_hex(sent.hash))
        for log in (receipt or {}).get("logs", ()):
            if (log["address"].lower(), log["topics"][:1]) == (to_hex(panel), [to_hex(bindings.Voted.TOPIC)]):
                event = _PANEL.EVENTS[bindings.Voted.TOPIC].decode(log)
                return Vote(votes=event.votes, threshold=event.threshold)
        raise error(
            "chain_failed",
            f"the vote is mined in {to_hex(sent.hash)}, and its event cannot be read",
            "`fabstir dispute show JOB` tells the votes.",
        )
