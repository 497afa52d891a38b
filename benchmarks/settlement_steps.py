"""Steps of `settlement_gas` that the peer does not have: top-ups, delegates, proofs, claims, disputes, prompts; and x402's one step.

A claim has several ends. Each is measured from the same state of the chain, by snapshots, so that one proof serves all of them.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from settlement_sides import (
    ARBITER,
    BOND,
    CHALLENGE,
    DAY,
    DELEGATE,
    DEPOSIT,
    HOST,
    PRICE,
    RENTER,
    SIGNER,
    TOKENS,
    Chain,
    Measurement,
    Ours,
    pad,
    word,
)

from fabstir.chain.bindings import (
    Claim,
    Completion,
    Delegation,
    HostStake,
    JobMarketplace,
    NodeRegistry,
    Offer,
    PromptBoard,
    PromptTerms,
    Proof,
    TestUSDC,
    Turn,
)
from fabstir.chain.bindings import Opening as AbiOpening
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.rpc import quantity
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.prover import ProofStatement, Prover
from fabstir.protocol import commitments
from fabstir.protocol.authorization import top_up_nonce
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import Market, SigningKey, keccak
from fabstir.protocol.transcript import extend, job_head, turn_head

SIGNED: Final = 192
"""Tokens of the voucher before the proof; the other 64, the default of what may be unsigned, are claimed."""
RECORDS: Final = tuple(keccak(b"record%d" % n) for n in range(TOKENS))
REQUEST: Final = keccak(b"request")
FOREVER: Final = 2**40 - 1
MOST_TOKENS: Final = 1_024
DEADLINE: Final = 7_200
TRANSFER: Final = keccak(
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


async def deposits(run: Measurement) -> None:
    """Top-ups in both currencies and by signature; opening and topping up as a delegate."""
    chain, usdc, delegation = run.chain, run.chain.info.usdc, run.chain.info.delegation
    native, terms = [AbiTerms(*await run.opened(token, kind)) for token, kind in chain.currencies()]
    await run.note("top_up_eth", RENTER, JobMarketplace.encode_top_up(native, DEPOSIT), DEPOSIT)
    await run.note("top_up_usdc", RENTER, JobMarketplace.encode_top_up(terms, DEPOSIT))
    before = await chain.now() + DAY
    sig = run.authorization(top_up_nonce(run.job(terms), BaseUnits(2 * DEPOSIT)), DEPOSIT, before)
    signed = JobMarketplace.encode_top_up_with_authorization(terms, DEPOSIT, before, sig)
    await run.note("top_up_signed_usdc", HOST, signed)
    await chain.send(RENTER, usdc, TestUSDC.encode_approve(delegation, 2**256 - 1))
    budget = Delegation.encode_set_delegate(DELEGATE.address, usdc, 100 * DEPOSIT, FOREVER)
    await run.note("set_delegate_usdc", RENTER, budget, to=delegation)
    delegated = AbiTerms(*await run.terms(usdc, payer=delegation))
    await run.note("open_delegate_usdc", DELEGATE, Delegation.encode_open_job(delegated, DEPOSIT), to=delegation)
    await run.note("top_up_delegate_usdc", DELEGATE, Delegation.encode_top_up_job(delegated, DEPOSIT), to=delegation)


class ProvenJob:
    """A job of TOKENS tokens whose proof the contract has accepted."""

    def __init__(
        self, run: Measurement, prover: Prover, token: Address, kind: str, records: tuple[bytes, ...] = RECORDS
    ) -> None:
        """`records`: TOKENS digests; a circuit that opens records needs its own."""
        self.run = run
        self.records = records
        self.prover = prover
        self.token = token
        self.kind = kind
        self.market = Market(CHAIN_ID, run.side.address)

    async def serve(self) -> None:
        """Open it; the transcript of what was served, in one answer."""
        self.abi = AbiTerms(*await self.run.opened(self.token, self.kind))
        named: dict[str, Any] = dict(zip(Terms.__struct_fields__, self.abi, strict=True))
        self.terms = Terms(**named)
        self.job = self.run.job(self.abi)
        first = turn_head(job_head(self.market, self.terms), 0, Tokens(0), REQUEST)
        self.signed_head = extend(first, self.records[:SIGNED])
        self.head = extend(self.signed_head, self.records[SIGNED:])

    async def prove(self) -> None:
        """Commit and answer the challenge with a real proof."""
        run, prover, records = self.run, self.prover, self.records
        checkpoint = Checkpoint((await prover.commit(records)).digest, Tokens(TOKENS))
        self.tree = commitments.tree_root((checkpoint,))
        root = commitments.commitment_root(self.tree.hash, self.head)
        commit = JobMarketplace.encode_commit_proof(self.abi, TOKENS, root)
        made_at = quantity((await run.note("commit_proof", HOST, commit))["blockNumber"])
        await run.chain.control.mine(SEED_DELAY + 1)
        block_hash = Hash32(bytes.fromhex((await run.chain.block(hex(made_at + SEED_DELAY)))["hash"][2:]))
        seed = commitments.challenge_seed(block_hash, self.job, root)
        path = commitments.open_path((checkpoint,), commitments.challenged_position(seed, self.tree.tokens))
        statement = commitments.statement_hash(
            self.market, self.terms, self.job, root, self.tree.tokens, path, prover.circuit_id
        )
        bundle = await prover.prove(ProofStatement(statement, seed, checkpoint.commitment), records)
        proof = Proof(
            bundle.circuit_id, self.tree.hash, self.head, TOKENS, TOKENS, checkpoint.commitment, [], bundle.proof
        )
        await run.note("submit_proof", HOST, JobMarketplace.encode_submit_proof(self.abi, proof))

    def voucher(self, tokens: int, head: Hash32) -> Claim:
        """The renter's."""
        amount = cost(Tokens(tokens), self.terms.price)
        digest = self.market.voucher_digest(self.job, amount, Tokens(tokens), head)
        return Claim(self.abi, amount, tokens, head, SIGNER.sign(digest))

    def opening(self, signed: Claim | None) -> AbiOpening:
        """From that voucher, or from the beginning."""
        start = signed.tokens if signed else 0
        turns = [] if signed else [Turn(0, 0, REQUEST)]
        transcript, sig = (signed.transcript, signed.sig) if signed else (bytes(32), b"")
        return AbiOpening(self.tree.hash, self.head, TOKENS, start, transcript, sig, self.records[start:], turns)

    async def note(self, step: str, sender: SigningKey, data: bytes, value: int = 0) -> None:
        """Measure one call of this job's currency."""
        await self.run.note(f"{step}_{self.kind}", sender, data, value)


async def proven_sessions(chain: Chain, prover: Prover, policy: ProofPolicy) -> Measurement:
    """Policy `required`: a whole session with its proof. Either policy: a proof, a claim of the last 64 tokens, and all its ends."""
    run = Measurement(chain, Ours(chain.info.market, policy))
    for token, kind in chain.currencies():
        job = ProvenJob(run, prover, token, kind)
        await job.serve()
        await job.prove()
        untouched = await chain.control.snapshot()
        await job.note("close_by_host", HOST, JobMarketplace.encode_close_by_host(job.voucher(TOKENS, job.head)))
        await chain.control.revert(untouched)
        signed = job.voucher(SIGNED, job.signed_head)
        await job.note("redeem_1", HOST, JobMarketplace.encode_redeem([signed]))
        await job.note("claim_proven", HOST, JobMarketplace.encode_claim_proven(job.abi))
        await ends_of_claim(chain, job, signed)
    return run


async def ends_of_claim(chain: Chain, job: ProvenJob, signed: Claim) -> None:
    """Contradicted; taken over by a voucher; disputed, answered and ruled on both ways; settled by silence."""
    bond = BOND if job.token == ZERO_ADDRESS else 0
    close = HOST.sign(job.market.close_digest(job.job, BaseUnits(signed.amount), Tokens(SIGNED)))
    contradict = JobMarketplace.encode_contradict(job.abi, signed.amount, SIGNED, close)
    taken_over = JobMarketplace.encode_redeem([job.voucher(TOKENS, job.head)])
    for step, sender, data in (("contradict", RENTER, contradict), ("redeem_claimed", HOST, taken_over)):
        claimed = await chain.control.snapshot()
        await job.note(step, sender, data)
        await chain.control.revert(claimed)
    claimed = await chain.control.snapshot()
    await job.note("dispute", RENTER, JobMarketplace.encode_dispute(job.abi), bond)
    await job.note("answer_64_records", HOST, JobMarketplace.encode_answer_dispute(job.abi, job.opening(signed)))
    for winner, for_host in (("host", True), ("renter", False)):
        answered = await chain.control.snapshot()
        await job.note(f"rule_for_{winner}", ARBITER, JobMarketplace.encode_rule(job.abi, for_host))
        await chain.control.revert(answered)
    await chain.control.revert(claimed)
    await chain.control.advance(CHALLENGE)
    await job.note("settle_claim", HOST, JobMarketplace.encode_settle_claim(job.abi))


async def enlist(chain: Chain, model: ModelId) -> None:
    """Stake for the host and list it with offers in both currencies; the renter lets the board take its USDC."""
    info = chain.info
    await chain.send(HOST, info.usdc, TestUSDC.encode_approve(info.stakes, MINIMUM_STAKE))
    await chain.send(HOST, info.stakes, HostStake.encode_stake(MINIMUM_STAKE))
    offers = [Offer(model, token, PRICE) for token, _ in chain.currencies()]
    await chain.send(HOST, info.registry, NodeRegistry.encode_register("http://localhost:1", b"\x02" * 32, offers))
    await chain.send(RENTER, info.usdc, TestUSDC.encode_approve(info.board, 2**256 - 1))


class Prompts:
    """The lives of prompts in one currency."""

    def __init__(self, run: Measurement, model: ModelId, token: Address, kind: str) -> None:
        self.run = run
        self.model = model
        self.token = token
        self.kind = kind

    async def note(self, step: str, by: SigningKey, data: bytes, value: int = 0) -> None:
        """Measure one call of the board."""
        await self.run.note(f"prompt_{step}_{self.kind}", by, data, value, to=self.run.chain.info.board)

    async def post(self) -> PromptTerms:
        """For an answer of at most 1,024 tokens."""
        terms = PromptTerms(
            RENTER.address, SIGNER.address, self.token, ZERO_ADDRESS, ARBITER.address, PRICE, BOND, MOST_TOKENS,
            await self.run.chain.now() + DEADLINE, 600, CHALLENGE, ProofPolicy.REQUIRED, self.model,
            secrets.token_bytes(32), secrets.token_bytes(32),
        )  # fmt: skip
        escrow = cost(Tokens(MOST_TOKENS), PricePerMTok(PRICE))
        await self.note("post", RENTER, PromptBoard.encode_post(terms), escrow if self.token == ZERO_ADDRESS else 0)
        return terms

    async def lives(self) -> None:
        """Completed; assigned first; cancelled; refunded at the deadline. One stays, so that no balance falls to zero."""
        await self.post()
        terms = await self.post()
        await self.note("claim", HOST, PromptBoard.encode_claim(terms, HOST.address))
        done = Completion(TOKENS, keccak(b"cid"), keccak(b"result"))
        await self.note("complete", HOST, PromptBoard.encode_complete(terms, done))
        terms = await self.post()
        await self.note("assign", RENTER, PromptBoard.encode_assign_job_to_host(terms, HOST.address))
        await self.note("claim_assigned", HOST, PromptBoard.encode_claim(terms, HOST.address))
        await self.note("cancel", RENTER, PromptBoard.encode_cancel(await self.post()))
        terms = await self.post()
        await self.run.chain.control.advance(DEADLINE)
        await self.note("refund", HOST, PromptBoard.encode_refund(terms))


async def x402_exact(run: Measurement) -> None:
    """What `exact` sends for every paid request: the payer's signed transfer, by the facilitator. To a new receiver, and again."""
    usdc, before = run.chain.info.usdc, await run.chain.now() + DAY
    separator = await run.chain.call(usdc, TestUSDC.encode_domain_separator())
    receiver = Address(secrets.token_bytes(20))
    for step in ("x402_exact_first_usdc", "x402_exact_usdc"):
        nonce = secrets.token_bytes(32)
        words = pad(RENTER.address) + pad(receiver) + word(2_000) + word(0) + word(before) + nonce
        sig = RENTER.sign(keccak(b"\x19\x01" + separator + keccak(TRANSFER + words)))
        pay = TestUSDC.encode_transfer_with_authorization(RENTER.address, receiver, 2_000, 0, before, nonce, sig)
        await run.note(step, HOST, pay, to=usdc)
