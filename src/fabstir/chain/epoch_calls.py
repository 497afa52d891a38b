"""Epochs of one host, as its account carries them out: `EpochProofs`, and the market's `redeemByEpoch`."""

from __future__ import annotations

from typing import Final

from fabstir.chain import bindings
from fabstir.chain.calls import Calls
from fabstir.chain.conversion import abi_epoch_claims, abi_proof, abi_terms
from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import Tokens
from fabstir.domain.terms import Terms
from fabstir.ports.chain import ClaimArgs, EpochState, ProofArgs, SumNodeArgs, TxResult

_EPOCHS: Final = bindings.EpochProofs


class EpochCalls(Calls):
    """Part of `MarketClient`."""

    async def epoch(self, host: Address) -> EpochState:
        """The last commitment."""
        found = await self._call(self._info.epochs, _EPOCHS.encode_epoch_of(host), _EPOCHS.decode_epoch_of)
        return EpochState(pending_block=found.pending_block, digest=found.digest)

    async def proven_epoch(self, host: Address, root: Hash32) -> Tokens:
        """0 where it is not proven."""
        data = _EPOCHS.encode_proven_tokens(host, root)
        return Tokens(await self._call(self._info.epochs, data, _EPOCHS.decode_proven_tokens))

    async def commit_epoch(self, key: str, root: Hash32, tokens: Tokens) -> TxResult:
        """Fix many sessions at once."""
        return await self._send(key, self._info.epochs, _EPOCHS.encode_commit_epoch(root, tokens))

    async def prove_epoch(self, key: str, terms: Terms, path: tuple[SumNodeArgs, ...], proof: ProofArgs) -> TxResult:
        """Answer the challenge."""
        siblings = [bindings.SumNode(node.hash, node.tokens, node.left) for node in path]
        data = _EPOCHS.encode_prove_epoch(abi_terms(terms), siblings, abi_proof(proof))
        return await self._send(key, self._info.epochs, data)

    async def redeem_by_epoch(
        self, key: str, claims: tuple[ClaimArgs, ...], tree_roots: tuple[Hash32, ...], root: Hash32, path: bytes
    ) -> TxResult:
        """Vouchers of sessions that the epoch holds, of one token, policy and model."""
        shared, own = abi_epoch_claims(claims, tree_roots)
        return await self._market(key, bindings.JobMarketplace.encode_redeem_by_epoch(shared, own, root, path))
