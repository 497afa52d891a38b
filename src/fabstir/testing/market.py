"""One account's view of `fabstir.testing.chain`: implements `fabstir.ports.chain.MarketChain`.

Reads the ledger, turns each write into a move of the settlement model, and finds out what the model takes as given: who
signed, and whether a proof answers its challenge. Refusals carry the names of the contracts' own errors.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import ChainCondition, ChainInfo, ClaimArgs, HostEntry, ProofArgs, TxResult
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.protocol import settlement
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
from fabstir.protocol.settlement import SEED_DELAY, Reverted
from fabstir.protocol.signing import EIP712_DOMAIN, Market, job_id, keccak, recover
from fabstir.testing.chain import Effect, Ledger, MemoryChain, settle, take_deposit

_RECEIVE: Final = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
MAX_MODELS: Final = 32
MAX_URL_BYTES: Final = 256


class MemoryMarket:
    """Made by `MemoryChain.connect`. Holds nothing: everything is in the chain."""

    def __init__(self, chain: MemoryChain, account: Address) -> None:
        self._chain = chain
        self._account = account
        self._contract = Market(chain.info.chain_id, chain.info.market)

    def __repr__(self) -> str:
        return f"<MemoryMarket 0x{self._account.hex()} on {self._chain!r}>"

    @property
    def info(self) -> ChainInfo:
        return self._chain.info

    @property
    def account(self) -> Address:
        return self._account

    def condition(self) -> ChainCondition:
        return ChainCondition()

    # -- reads
    async def job(self, job_id: JobId) -> JobState:
        account = self._read().market.jobs.get(job_id)
        if account is None:
            return JobState()
        # A closed job's slot holds a tombstone in the place of `signed`.
        return msgspec.structs.replace(account.state, signed=Tokens(0)) if account.state.closed else account.state

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

    async def hosts(self, model_id: ModelId | None = None) -> list[HostEntry]:
        entries = self._read().hosts.values()
        return [entry for entry in entries if model_id is None or model_id in dict(entry.models)]

    async def model_approved(self, model_id: ModelId) -> bool:
        return model_id in self._read().models

    # -- writes
    async def approve(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            return msgspec.structs.replace(ledger, allowances={**ledger.allowances, (token, self._account): amount})

        return await self._transact(key, effect)

    async def open(self, key: str, terms: Terms, deposit: BaseUnits) -> TxResult:
        if terms.token == ZERO_ADDRESS and self._read().balance(ZERO_ADDRESS, self._account) < deposit:
            raise error("funds_insufficient", detail=f"{deposit} wei are needed")
        return await self._transact(key, self._opening(terms, deposit, authorized=False))

    async def open_with_authorization(
        self, key: str, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes
    ) -> TxResult:
        signer = recover(self._authorization_digest(terms, deposit, valid_before), signature)
        opening = self._opening(terms, deposit, authorized=True)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if terms.token == ZERO_ADDRESS:
                raise Reverted("BadTerms")
            opened = opening(ledger, now, block)
            if now >= valid_before:
                raise Reverted("AuthorizationExpired")
            if signer != terms.renter:
                raise Reverted("SignatureInvalid")
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
            return ledger

        return await self._transact(key, effect)

    async def redeem(self, key: str, claims: tuple[ClaimArgs, ...]) -> TxResult:
        return await self._settle(key, *(self._voucher(claim) for claim in claims))

    async def claim_proven(self, key: str, terms: Terms) -> TxResult:
        return await self._settle(key, settlement.ClaimProven(self._account, job_id(terms)))

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

    async def register_host(self, key: str, url: str, models: tuple[tuple[ModelId, PricePerMTok], ...]) -> TxResult:
        entry = HostEntry(address=self._account, url=url, models=models, active=True)

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            _check_entry(entry, ledger)
            return msgspec.structs.replace(ledger, hosts={**ledger.hosts, self._account: entry})

        return await self._transact(key, effect)

    async def unregister_host(self, key: str) -> TxResult:
        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            if self._account not in ledger.hosts:
                raise Reverted("NotRegistered")
            left = {owner: entry for owner, entry in ledger.hosts.items() if owner != self._account}
            return msgspec.structs.replace(ledger, hosts=left)

        return await self._transact(key, effect)

    # -- how a call becomes a move
    def _read(self) -> Ledger:
        self._chain.check_reachable()
        return self._chain.ledger

    async def _transact(self, key: str, effect: Effect) -> TxResult:
        return await self._chain.transact(self._account, key, effect)

    async def _settle(self, key: str, *calls: settlement.Call) -> TxResult:
        """All calls or none, in one transaction."""

        def effect(ledger: Ledger, now: int, block: int) -> Ledger:
            for call in calls:
                ledger = settle(ledger, call, now, block)
            return ledger

        return await self._transact(key, effect)

    def _opening(self, terms: Terms, deposit: BaseUnits, *, authorized: bool) -> Effect:
        call = settlement.Open(self._account, terms, deposit, authorized=authorized)
        take = partial(take_deposit, payer=terms.renter, token=terms.token, deposit=deposit, authorized=authorized)
        return lambda ledger, now, block: take(settle(ledger, call, now, block))

    def _voucher(self, claim: ClaimArgs) -> settlement.Redeem:
        job = job_id(claim.terms)
        digest = self._contract.voucher_digest(job, claim.amount, claim.tokens, claim.transcript)
        return settlement.Redeem(self._account, job, claim.amount, claim.tokens, recover(digest, claim.signature))

    async def _refusal(self, terms: Terms, proof: ProofArgs, root: Hash32) -> str:
        """The contract's word against path, sums or proof for the challenge of the pending commitment; empty where all holds."""
        prover, job = self._chain.prover, job_id(terms)
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
        if prover is None or prover.circuit_id != proof.circuit_id:
            return "ProofInvalid"
        path = msgspec.structs.replace(path, tokens_before=before)
        statement = statement_hash(self._contract, terms, job, root, proof.tokens, path, proof.circuit_id)
        public = ProofStatement(statement, seed, proof.commitment)
        return "" if await prover.verify(public, ProofBundle(proof.circuit_id, proof.proof)) else "ProofInvalid"

    def _authorization_digest(self, terms: Terms, deposit: BaseUnits, valid_before: int) -> Hash32:
        """EIP-3009 for the test USDC (EIP-712 name "USD Coin", version "2"), the job id as nonce."""
        words = (terms.renter, self._chain.info.market)
        numbers = (deposit, 0, valid_before)
        struct = b"".join(bytes(12) + word for word in words) + b"".join(n.to_bytes(32, "big") for n in numbers)
        domain = EIP712_DOMAIN + keccak(b"USD Coin") + keccak(b"2") + self._chain.info.chain_id.to_bytes(32, "big")
        separator = keccak(domain + bytes(12) + terms.token)
        return keccak(b"\x19\x01" + separator + keccak(_RECEIVE + struct + job_id(terms)))


def _path(proof: ProofArgs) -> SumPath:
    siblings = tuple(SumNode(node.hash, node.tokens, node.left) for node in proof.path)
    return SumPath(0, Checkpoint(proof.commitment, proof.checkpoint_tokens), Tokens(0), siblings)


def _check_entry(entry: HostEntry, ledger: Ledger) -> None:
    """As NodeRegistry.register does. Raises Reverted."""
    ids = [model for model, _ in entry.models]
    if not 1 <= len(entry.url.encode()) <= MAX_URL_BYTES:
        raise Reverted("BadUrl")
    if not 1 <= len(ids) <= MAX_MODELS:
        raise Reverted("BadModelCount")
    if len(set(ids)) != len(ids):
        raise Reverted("DuplicateModel")
    for model, price in entry.models:
        if price == 0:
            raise Reverted("ZeroPrice")
        if model not in ledger.models:
            raise Reverted("ModelNotApproved")
