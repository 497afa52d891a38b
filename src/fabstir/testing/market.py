"""One account's view of `fabstir.testing.chain`: implements `fabstir.ports.prompts.PromptChain`.

Reads the ledger, turns each write into a move of the settlement model, and finds out what the model takes as given: who
signed, and whether a proof answers its challenge. Refusals carry the names of the contracts' own errors.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import ChainCondition, ClaimArgs, ProofArgs, TxResult
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.protocol import settlement
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.commitments import (
    Checkpoint,
    SumNode,
    SumPath,
    challenge_seed,
    challenged_position,
    commitment_root,
    root_of_path,
    statement_hash,
)
from fabstir.protocol.opening import Opening, refusal_of
from fabstir.protocol.settlement import SEED_DELAY, Reverted
from fabstir.protocol.signing import job_id, recover
from fabstir.testing.chain import Effect, Ledger, settle, take
from fabstir.testing.epochs import MemoryEpochs
from fabstir.testing.registry import allow, spend_budget


class MemoryMarket(MemoryEpochs):
    """Made by `MemoryChain.connect`. Holds nothing: everything is in the chain."""

    def condition(self) -> ChainCondition:
        return ChainCondition()

    # -- reads
    async def job(self, job_id: JobId) -> JobState:
        account = self._read().market.jobs.get(job_id)
        return JobState() if account is None else account.state

    async def block_number(self) -> int:
        self._read()
        return self._chain.block

    async def block_hash(self, number: int) -> Hash32 | None:
        self._read()
        return self._chain.block_hash(number)

    async def timestamp(self) -> int:
        self._read()
        return self._chain.now()

    async def balance(self, token: Address, owner: Address) -> BaseUnits:
        return BaseUnits(self._read().balance(token, owner))

    async def earnings(self, token: Address, owner: Address) -> BaseUnits:
        return BaseUnits(self._read().market.earnings.get((owner, token), 0))

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            return allow(ledger, token, self._account, self._chain.info.market, amount)

        return await self._transact(key, effect)

    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        if terms.token == ZERO_ADDRESS and self._read().balance(ZERO_ADDRESS, self._account) < deposit:
            raise error("funds_insufficient", detail=f"{deposit} wei are needed")
        return await self._transact(key, self._opening(terms, deposit, authorized=False))

    async def open_as_delegate(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        delegation = self._chain.info.delegation
        call = settlement.Open(delegation, terms, deposit)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            ledger = spend_budget(ledger, (terms.renter, self._account, terms.token), deposit, now)
            ledger = take(ledger, terms.renter, terms.token, deposit, delegation)
            return settle(ledger, call, now, block)

        return await self._transact(key, effect)

    async def top_up_as_delegate(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        call = settlement.TopUp(job_id(terms), amount)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            ledger = spend_budget(ledger, (terms.renter, self._account, terms.token), amount, now)
            ledger = take(ledger, terms.renter, terms.token, amount, self._chain.info.delegation)
            return settle(ledger, call, now, block)

        return await self._transact(key, effect)

    async def top_up(self, key: str, terms: Terms, amount: BaseUnits) -> TxResult:
        call = settlement.TopUp(job_id(terms), amount)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            return take(settle(ledger, call, now, block), self._account, terms.token, amount)

        return await self._transact(key, effect)

    async def top_up_with_authorization(
        self, key: str, terms: Terms, amount: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        call = settlement.TopUp(job_id(terms), amount)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            account = ledger.market.jobs.get(job_id(terms))
            nonce = top_up_nonce(job_id(terms), account.state.deposit if account else BaseUnits(0))
            self._check_authorization(terms, amount, valid_before, nonce, signature, now)
            return take(settle(ledger, call, now, block), terms.renter, terms.token, amount, None)

        return await self._transact(key, effect)

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        opening = self._opening(terms, deposit, authorized=True)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            opened = opening(ledger, now, block)
            self._check_authorization(terms, deposit, valid_before, job_id(terms), signature, now)
            return opened

        return await self._transact(key, effect)

    async def commit_proof(self, key: str, terms: Terms, tokens: Tokens, root: Hash32) -> TxResult:
        return await self._settle(key, settlement.CommitProof(self._account, job_id(terms), tokens, root))

    async def submit_proof(self, key: str, terms: Terms, proof: ProofArgs) -> TxResult:
        root = commitment_root(proof.tree_root, proof.head)
        refusal = await self._refusal(terms, proof, root)
        call = settlement.SubmitProof(job_id(terms), proof.tokens, root, valid=True)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            ledger = settle(ledger, call, now, block)  # refuses first what has nothing to do with the proof itself
            if refusal:
                raise Reverted(refusal)
            self._chain.committed[job_id(terms)] = (proof.tokens, root)
            return ledger

        return await self._transact(key, effect)

    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult:
        return await self._settle(key, *(self._voucher(claim) for claim in claims))

    async def claim_proven(self, key: str, terms: Terms) -> TxResult:
        return await self._settle(key, settlement.ClaimProven(self._account, job_id(terms)))

    async def settle_claim(self, key: str, terms: Terms) -> TxResult:
        return await self._settle(key, settlement.SettleClaim(job_id(terms)))

    async def dispute(self, key: str, terms: Terms) -> TxResult:
        call = settlement.Dispute(self._account, job_id(terms))

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            return take(settle(ledger, call, now, block), self._account, terms.token, terms.bond)

        return await self._transact(key, effect)

    async def contradict(
        self, key: str, terms: Terms, amount: BaseUnits, tokens: Tokens, host_signature: bytes
    ) -> TxResult:
        host = recover(self._contract.close_digest(job_id(terms), amount, tokens), host_signature)
        return await self._settle(key, settlement.Contradict(job_id(terms), tokens, host))

    async def answer_dispute(self, key: str, terms: Terms, opening: Opening) -> TxResult:
        job = job_id(terms)
        account = self._read().market.jobs.get(job)
        refusal = refusal_of(self._contract, terms, account.state.signed if account else Tokens(0), opening)
        committed = self._chain.committed.get(job)
        if committed != (opening.tokens, commitment_root(opening.tree_root, opening.head)):
            refusal = "NoCommitment"
        return await self._settle(key, settlement.AnswerDispute(self._account, job, refusal))

    async def rule(self, key: str, terms: Terms, for_host: bool) -> TxResult:
        return await self._settle(key, settlement.Rule(self._account, job_id(terms), for_host))

    async def close_by_host(self, key: str, claim: ClaimArgs) -> TxResult:
        voucher = self._voucher(claim) if claim.signature else None
        return await self._settle(key, settlement.CloseByHost(self._account, job_id(claim.terms), voucher))

    async def close_cooperative(self, key: str, claim: ClaimArgs, host_signature: bytes) -> TxResult:
        job = job_id(claim.terms)
        host = recover(self._contract.close_digest(job, claim.amount, claim.tokens), host_signature)
        signer = self._voucher(claim).recovered
        call = settlement.CloseCooperative(self._account, job, claim.amount, claim.tokens, host, signer)
        return await self._settle(key, call)

    async def request_close(self, key: str, terms: Terms) -> TxResult:
        return await self._settle(key, settlement.RequestClose(self._account, job_id(terms)))

    async def finalize(self, key: str, terms: Terms) -> TxResult:
        return await self._settle(key, settlement.Finalize(self._account, job_id(terms)))

    async def withdraw(self, key: str, token: Address, to: Address) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if to in (ZERO_ADDRESS, self._chain.info.market):
                raise Reverted("BadRecipient")
            amount = ledger.market.earnings.get((self._account, token), 0)
            ledger = settle(ledger, settlement.Withdraw(self._account, token), now, block)
            return ledger.paid(token, to, amount)

        return await self._transact(key, effect)

    # -- how a call becomes a move
    def _opening(self, terms: Terms, deposit: BaseUnits, *, authorized: bool) -> Effect:
        call = settlement.Open(self._account, terms, deposit, authorized=authorized)
        payer, spender = (terms.renter, None) if authorized else (self._account, self._chain.info.market)
        return lambda ledger, now, block: take(settle(ledger, call, now, block), payer, terms.token, deposit, spender)

    async def _refusal(self, terms: Terms, proof: ProofArgs, root: Hash32) -> str:
        """The contract's word against path, sums or proof for the challenge of the pending commitment; empty where all holds."""
        job = job_id(terms)
        account = self._read().market.jobs.get(job)
        seed_hash = self._chain.block_hash(account.pending.block + SEED_DELAY) if account and account.pending else None
        if seed_hash is None:
            return "SeedNotReady"
        path = _path(proof)
        top, before = root_of_path(path)
        seed = challenge_seed(seed_hash, job, root)
        if (top.hash, top.tokens) != (proof.tree_root, proof.tokens):
            return "PathMismatch"
        if not before <= challenged_position(seed, proof.tokens) < before + proof.checkpoint_tokens:
            return "WrongCheckpoint"
        path = msgspec.structs.replace(path, tokens_before=before)
        statement = statement_hash(self._contract, terms, job, root, proof.tokens, path, proof.circuit_id)
        public = ProofStatement(statement, seed, proof.commitment)
        bundle = ProofBundle(proof.circuit_id, proof.proof)
        return "" if await self._chain.verifies(public, bundle) else "ProofInvalid"

    def _check_authorization(
        self, terms: Terms, amount: BaseUnits, valid_before: int, nonce: bytes, signature: bytes, now: int
    ) -> None:
        """As the test USDC does for EIP-3009. Raises Reverted."""
        info = self._chain.info
        digest = authorization_digest(
            info.chain_id, terms.token, terms.renter, info.market, amount, valid_before, Hash32(nonce)
        )
        if terms.token == ZERO_ADDRESS:
            raise Reverted("BadTerms")
        if now >= valid_before:
            raise Reverted("AuthorizationExpired")
        if recover(digest, signature) != terms.renter:
            raise Reverted("SignatureInvalid")


def _path(proof: ProofArgs) -> SumPath:
    siblings = tuple(SumNode(node.hash, node.tokens, node.left) for node in proof.path)
    return SumPath(0, Checkpoint(proof.commitment, proof.checkpoint_tokens), Tokens(0), siblings)
