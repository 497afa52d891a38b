"""What a host can do with epochs: commit its sessions together, prove them by one proof, redeem vouchers of them; rightly and wrongly.

Tree, places, paths, seed and statement are `fabstir.protocol.epochs`, so that they are checked against Solidity on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from fabstir.chain.bindings import EpochProofs, JobMarketplace, Proof, SumNode
from fabstir.chain.conversion import abi_epoch_claims
from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import Terms
from fabstir.ports.chain import ClaimArgs
from fabstir.protocol import commitments, settlement
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.epochs import (
    EpochPlace,
    EpochSession,
    covering_path,
    drawn,
    epoch_seed,
    epoch_statement,
    place_all,
)
from fabstir.protocol.signing import keccak
from fabstir.testing.prover import CIRCUIT_ID
from tests.contracts.dispute_rules import WIDTHS, DisputeRules, checkpoints_of
from tests.contracts.evm import CHAIN_ID, CallReverted
from tests.contracts.market import TwinMarket, abi_terms
from tests.contracts.market_rules import HOST, SIGNER

FLAWS: Final = st.sampled_from(
    ["", "", "", "", "", "unproven", "another proof", "root", "head", "tree", "tokens", "path"]
)

Served = tuple[Terms, JobId, tuple[Checkpoint, ...], Hash32]
"""A job, its checkpoints, and the head at their end."""


class Epoch:
    """Sessions of one host on the twin's EVM, each a job with its checkpoints and the head at their end."""

    def __init__(self, twin: TwinMarket, sessions: Sequence[Served], proven: set[Hash32]) -> None:
        """`proven`: roots of the host's epochs that were proven; this one's comes to it."""
        self.twin, self.proven = twin, proven
        self.terms = [terms for terms, *_ in sessions]
        self.checkpoints = [checkpoints for _, _, checkpoints, _ in sessions]
        trees = [commitments.tree_root(checkpoints) for checkpoints in self.checkpoints]
        self.places = place_all(
            [
                EpochSession(job, tree.hash, head, tree.tokens)
                for (_, job, _, head), tree in zip(sessions, trees, strict=True)
            ]
        )
        self.root, self.total = self.places[0].root, self.places[0].total

    def commit(self) -> None:
        """In this block; the challenge is known three blocks later."""
        twin = self.twin
        twin.evm.call(HOST.address, twin.epochs, EpochProofs.encode_commit_epoch(self.root, self.total))
        self.made_at = twin.evm.block
        twin.evm.mine(3, 3)

    def answer(self) -> tuple[Terms, EpochPlace, Proof]:
        """To the challenge."""
        twin = self.twin
        seed_hash = twin.evm.block_hash(self.made_at + settlement.SEED_DELAY)
        assert seed_hash is not None
        seed = epoch_seed(CHAIN_ID, twin.epochs, HOST.address, self.root, seed_hash)
        position = commitments.challenged_position(seed, self.total)
        place = drawn(self.places, position)
        assert place is not None
        terms = self.terms[place.index]
        path = commitments.open_path(self.checkpoints[place.index], position - place.before)
        statement = epoch_statement(CHAIN_ID, twin.epochs, terms, place, path, CIRCUIT_ID)
        siblings = [SumNode(node.hash, node.tokens, node.left) for node in path.siblings]
        tag = keccak(b"HashProver" + statement + seed + path.checkpoint.commitment)
        session, opened = place.session, path.checkpoint
        proof = Proof(
            CIRCUIT_ID, session.tree_root, session.head, session.tokens, opened.tokens, opened.commitment, siblings, tag
        )
        return terms, place, proof

    def prove(self, *, wrong: bool = False, by: Address = HOST.address) -> None:
        """Raises CallReverted where the contract takes no such proof."""
        terms, place, proof = self.answer()
        if wrong:
            proof = proof._replace(proof=keccak(proof.proof))
        way = [SumNode(node.hash, node.tokens, node.left) for node in place.siblings]
        data = EpochProofs.encode_prove_epoch(abi_terms(terms), way, proof)
        self.twin.evm.call(by, self.twin.epochs, data)
        self.proven.add(self.root)

    def alike(self, chosen: Sequence[EpochPlace]) -> list[list[EpochPlace]]:
        """In as many parts as the contract must be called: each of one token, policy and model."""

        def common(place: EpochPlace) -> tuple[bytes, int, bytes]:
            terms = self.terms[place.index]
            return terms.token, terms.policy, terms.model_id

        return [list(group) for _, group in groupby(sorted(chosen, key=lambda p: (common(p), p.index)), common)]

    def redeem(self, chosen: Sequence[EpochPlace], flaw: str = "", by: Address = HOST.address) -> str | None:
        """The vouchers of these sessions, which are alike, on both; with one thing wrong in the first of them, or in what belongs to it."""
        calls, claims = [], []
        for n, place in enumerate(chosen):
            terms, session = self.terms[place.index], place.session
            spoilt = flaw if n == 0 else ""
            head = keccak(session.head) if spoilt == "head" else session.head
            tokens = Tokens(session.tokens + (spoilt == "tokens"))
            amount = cost(tokens, terms.price)
            tree = keccak(session.tree_root) if spoilt == "tree" else session.tree_root
            calls.append(settlement.Redeem(by, session.job, amount, tokens, SIGNER.address))
            digest = self.twin.domain.voucher_digest(session.job, amount, tokens, head)
            told = ClaimArgs(terms=terms, amount=amount, tokens=tokens, transcript=head, signature=SIGNER.sign(digest))
            claims.append((told, tree))
        root = keccak(self.root) if flaw == "root" else self.root
        path = covering_path(chosen) + (bytes(36) if flaw == "path" else b"")
        shared, own = abi_epoch_claims(*zip(*claims, strict=True))
        data = JobMarketplace.encode_redeem_by_epoch(shared, own, root, path)
        return self.twin.both(settlement.RedeemByEpoch(tuple(calls), root in self.proven and not flaw), by, data)


class EpochRules(DisputeRules):
    """Epochs beside all the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: set[Hash32] = set()
        """Roots of those that were proven."""

    @precondition(lambda self: any(not account.state.closed for account in self.twin.model.jobs.values()))
    @rule(data=st.data(), width=WIDTHS, flaw=FLAWS)
    def epoch(self, data: st.DataObject, width: int, flaw: str) -> None:
        """Over every open job, at a count around its bounds; then the vouchers of some of them, in one call."""
        jobs = self.twin.model.jobs
        sessions = []
        for job in sorted(job for job in jobs if not jobs[job].state.closed):
            tokens = max(1, data.draw(st.one_of(st.just(self.some_tokens(data, job)), st.integers(1, 90))))
            head = self.streams[job].head(tokens)
            sessions.append((jobs[job].terms, job, checkpoints_of(tokens, width), head))
        epoch = Epoch(self.twin, sessions, self.epochs)
        self.commit_epoch(epoch)
        if flaw != "unproven":
            try:
                epoch.prove(wrong=flaw == "another proof")
            except CallReverted:
                assert flaw == "another proof", "a right proof of an epoch was refused"
        chosen = [place for place in epoch.places if data.draw(st.integers(0, 2))] or list(epoch.places[:1])
        chosen = data.draw(st.sampled_from(epoch.alike(chosen)))
        if epoch.redeem(chosen, "" if flaw in ("unproven", "another proof") else flaw) is None:
            for place in chosen:
                session, terms = place.session, epoch.terms[place.index]
                amount = cost(session.tokens, terms.price)
                self.streams[session.job].redeemed(
                    self.twin.claim(terms, session.job, amount, session.tokens, session.head, SIGNER)
                )

    def commit_epoch(self, epoch: Epoch) -> None:
        """An epoch that was left unproven has first to be out of reach."""
        try:
            epoch.commit()
        except CallReverted:
            self.twin.evm.mine(259, 259)
            epoch.commit()
