"""Epochs on the chain in memory, as one account sees them; part of `fabstir.testing.market`. Paths, sums and proofs are really checked."""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import Tokens
from fabstir.domain.terms import Terms
from fabstir.ports.chain import ClaimArgs, EpochState, ProofArgs, SumNodeArgs, TxResult
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.protocol import settlement
from fabstir.protocol.commitments import Checkpoint, SumNode, SumPath, challenged_position, inner, root_of_path
from fabstir.protocol.epochs import (
    EpochPlace,
    EpochSession,
    commitment_digest,
    covers,
    epoch_seed,
    epoch_statement,
    session_leaf,
)
from fabstir.protocol.settlement import BLOCKHASH_WINDOW, SEED_DELAY, Reverted
from fabstir.protocol.signing import job_id, recover
from fabstir.testing.chain import Ledger, settle
from fabstir.testing.prompts import MemoryPrompts


class MemoryEpochs(MemoryPrompts):
    """Between the prompt board and the market's own calls."""

    def _voucher(self, claim: ClaimArgs) -> settlement.Redeem:
        job = job_id(claim.terms)
        digest = self._contract.voucher_digest(job, claim.amount, claim.tokens, claim.transcript)
        return settlement.Redeem(self._account, job, claim.amount, claim.tokens, recover(digest, claim.signature))

    async def epoch(self, host: Address) -> EpochState:
        root, tokens, block = self._read().epochs.get(host, (Hash32(bytes(32)), Tokens(0), 0))
        return EpochState(pending_block=block, digest=commitment_digest(root, tokens) if tokens else 0)

    async def proven_epoch(self, host: Address, root: Hash32) -> Tokens:
        return self._read().proven_epochs.get((host, root), Tokens(0))

    async def commit_epoch(self, key: str, root: Hash32, tokens: Tokens) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            made_at = ledger.epochs.get(self._account, (root, tokens, 0))[2]
            if not tokens:
                raise Reverted("NothingToProve")
            if made_at and block <= made_at + SEED_DELAY + BLOCKHASH_WINDOW:
                raise Reverted("CommitmentPending")
            epochs = {**ledger.epochs, self._account: (root, tokens, block)}
            return msgspec.structs.replace(ledger, epochs=epochs)

        return await self._transact(key, effect)

    async def prove_epoch(self, key: str, terms: Terms, path: tuple[SumNodeArgs, ...], proof: ProofArgs) -> TxResult:
        place = _placed(terms, path, proof)
        refusal = await self._epoch_refusal(terms, place, proof)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            root, tokens, made_at = ledger.epochs.get(terms.host, (place.root, place.total, 0))
            if not made_at or (root, tokens) != (place.root, place.total):
                raise Reverted("NoCommitment")
            if block <= made_at + SEED_DELAY:
                raise Reverted("SeedNotReady")
            if block > made_at + SEED_DELAY + BLOCKHASH_WINDOW:
                raise Reverted("SeedExpired")
            if refusal:
                raise Reverted(refusal)
            return msgspec.structs.replace(
                ledger,
                epochs={**ledger.epochs, terms.host: (root, tokens, 0)},
                proven_epochs={**ledger.proven_epochs, (terms.host, root): tokens},
            )

        return await self._transact(key, effect)

    async def redeem_by_epoch(
        self, key: str, claims: tuple[ClaimArgs, ...], tree_roots: tuple[Hash32, ...], root: Hash32, path: bytes
    ) -> TxResult:
        if len({(claim.terms.token, claim.terms.policy, claim.terms.model_id) for claim in claims}) != 1:
            raise ValueError("one token, one policy, one model in each redemption")
        vouchers = tuple(self._voucher(claim) for claim in claims)
        sessions = [
            EpochSession(job_id(claim.terms), tree, claim.transcript, claim.tokens)
            for claim, tree in zip(claims, tree_roots, strict=True)
        ]

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            total = ledger.proven_epochs.get((self._account, root), Tokens(0))
            covered = total > 0 and covers(root, total, sessions, path)
            return settle(ledger, settlement.RedeemByEpoch(vouchers, covered), now, block)

        return await self._transact(key, effect)

    async def _epoch_refusal(self, terms: Terms, place: EpochPlace, proof: ProofArgs) -> str:
        """The contract's word against paths, sums or proof for the challenge of the open epoch; empty where all holds."""
        made_at = self._read().epochs.get(terms.host, (place.root, place.total, 0))[2]
        seed_hash = self._chain.block_hash(made_at + SEED_DELAY) if made_at else None
        if seed_hash is None:
            return "SeedNotReady"
        info = self._chain.info
        seed = epoch_seed(info.chain_id, info.epochs, terms.host, place.root, seed_hash)
        position = challenged_position(seed, place.total) - place.before
        if not 0 <= position < proof.tokens:
            return "WrongSession"
        nodes = tuple(SumNode(node.hash, node.tokens, node.left) for node in proof.path)
        path = SumPath(0, Checkpoint(proof.commitment, proof.checkpoint_tokens), Tokens(0), nodes)
        top, before = root_of_path(path)
        if (top.hash, top.tokens) != (proof.tree_root, proof.tokens):
            return "PathMismatch"
        if not before <= position < before + proof.checkpoint_tokens:
            return "WrongCheckpoint"
        path = msgspec.structs.replace(path, tokens_before=before)
        statement = epoch_statement(info.chain_id, info.epochs, terms, place, path, proof.circuit_id)
        public = ProofStatement(statement, seed, proof.commitment)
        bundle = ProofBundle(proof.circuit_id, proof.proof)
        return "" if await self._chain.verifies(public, bundle) else "ProofInvalid"


def _placed(terms: Terms, path: tuple[SumNodeArgs, ...], proof: ProofArgs) -> EpochPlace:
    """The session where its siblings say that it is."""
    session = EpochSession(job_id(terms), proof.tree_root, proof.head, proof.tokens)
    nodes = tuple(SumNode(node.hash, node.tokens, node.left) for node in path)
    node, before = session_leaf(session), 0
    for sibling in nodes:
        before += sibling.tokens if sibling.left else 0
        node = inner(sibling, node) if sibling.left else inner(node, sibling)
    return EpochPlace(session, node.hash, node.tokens, 0, 0, Tokens(before), nodes)
