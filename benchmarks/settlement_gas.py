"""Claim: a whole paid session settles on chain for no more gas than the lean channel of the design study, although it checks more.

Both contracts are measured in one run on one anvil, each call the median of several, with warm ledgers (a host's first credit in a
token costs 17,100 gas more, once). The peer, benchmarks/peers/LeanMarket.sol, has no proof policy, no exposure bound and no
commitment before the challenge; its proof is one signature, ours a real ezkl proof of 256 records. Needs contracts/node_modules.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
from pathlib import Path
from typing import Any, ClassVar, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contracts/tools"))

from common import main

import build
from fabstir.chain.abi import Function, encode_arguments
from fabstir.chain.anvil import find_anvil
from fabstir.chain.bindings import JobMarketplace, Proof, TestUSDC
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.chain.deploy import Operator
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ops import logging, paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import LogSection
from fabstir.ports.chain import ChainInfo
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.process import EzklProver
from fabstir.protocol import commitments
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import EIP712_DOMAIN, Market, SigningKey, keccak

HOST, RENTER, TREASURY = (SigningKey(DEV_KEYS[n]) for n in (1, 2, 9))
SIGNER: Final = SigningKey(b"\x05" * 32)
TOKENS: Final = 256
PRICE: Final = 200_000_000  # base units for a million tokens, so that 256 tokens are worth 51,200
DEPOSIT: Final = 10_000_000
CHALLENGE: Final = 3_600
TRANSCRIPT: Final = keccak(b"transcript")
GAS_LIMIT: Final = 10_000_000
PEER_SOURCE: Final = Path(__file__).parent / "peers/LeanMarket.sol"
RECEIVE: Final = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
Tuple = tuple[Any, ...]


def word(value: int) -> bytes:
    """32 bytes, big-endian."""
    return value.to_bytes(32, "big")


def pad(address: Address) -> bytes:
    """An address as a word."""
    return bytes(12) + address


class Chain:
    """Sends from anvil's unlocked accounts and reads the gas off the receipts."""

    def __init__(self, rpc: JsonRpc, info: ChainInfo) -> None:
        self.rpc = rpc
        self.info = info
        self.control = DevnetControl(rpc)

    async def send(self, sender: SigningKey, to: Address | None, data: bytes, value: int = 0) -> dict[str, Any]:
        """The receipt. Stops the benchmark where the call reverts: then there is nothing to measure."""
        call = {"from": to_hex(sender.address), "data": to_hex(data), "value": hex(value), "gas": hex(GAS_LIMIT)}
        sent = await self.rpc.request("eth_sendTransaction", call if to is None else {**call, "to": to_hex(to)})
        while (receipt := await self.rpc.request("eth_getTransactionReceipt", sent)) is None:  # noqa: ASYNC110 - it answers only when asked
            await asyncio.sleep(0.01)
        if receipt["status"] != "0x1":
            raise SystemExit(f"a call reverted that should not: {to_hex(data[:4])}")
        return dict(receipt)

    async def call(self, to: Address, data: bytes) -> bytes:
        """A view."""
        answer = await self.rpc.request("eth_call", {"to": to_hex(to), "data": to_hex(data)}, "latest")
        return bytes.fromhex(answer[2:])

    async def block(self, number: str = "latest") -> dict[str, Any]:
        """A block's header."""
        return dict(await self.rpc.request("eth_getBlockByNumber", number, False))


class Ours:
    """JobMarketplace."""

    types: ClassVar[str] = "(address,address,address,address,uint96,uint40,uint32,uint32,uint8,bytes32,bytes32)"
    count: ClassVar[str] = "uint32"
    domain: ClassVar[bytes] = b"FabstirMarket"
    voucher: ClassVar[bytes] = b"Voucher(bytes32 jobId,uint96 amount,uint32 tokens,bytes32 transcript)"
    close: ClassVar[bytes] = b"Close(bytes32 jobId,uint96 amount,uint32 tokens)"
    close_words: ClassVar[int] = 2

    def __init__(self, address: Address, policy: ProofPolicy = ProofPolicy.FALLBACK) -> None:
        self.address = address
        self.policy = policy

    def middle(self) -> Tuple:
        """What the terms hold between `challenge` and `modelId`."""
        return (64, self.policy)

    def function(self, name: str, *types: str) -> Function:
        """One that both contracts have, over this one's terms."""
        claim = f"({self.types},uint96,{self.count},bytes32,bytes)"
        inputs = [t.replace("Terms", self.types).replace("Claim", claim) for t in types]
        return Function(name, keccak(f"{name}({','.join(inputs)})".encode())[:4].hex(), inputs, [])


class Peer(Ours):
    """LeanMarket."""

    types = "(address,address,address,address,uint96,uint40,uint32,bytes32,bytes32)"
    count = "uint64"
    domain = b"FabMarket"
    voucher = b"Voucher(bytes32 sessionId,uint96 amount,uint64 tokens,bytes32 transcript)"
    close = b"Close(bytes32 sessionId,uint96 amount)"
    close_words = 1

    def middle(self) -> Tuple:
        """Neither exposure nor policy."""
        return ()


class Measurement:
    """The same calls on either of the two, noted by name."""

    def __init__(self, chain: Chain, side: Ours) -> None:
        self.chain = chain
        self.side = side
        self.figures: dict[str, list[int]] = {}

    async def note(self, step: str, sender: SigningKey, data: bytes, value: int = 0, share: int = 1) -> dict[str, Any]:
        """Measure one call; `share` jobs bear its cost."""
        receipt = await self.chain.send(sender, self.side.address, data, value)
        self.figures.setdefault(step, []).append(quantity(receipt["gasUsed"]) // share)
        return receipt

    def medians(self) -> dict[str, int]:
        """By step."""
        return {step: int(statistics.median(values)) for step, values in self.figures.items()}

    async def terms(self, token: Address) -> Tuple:
        """New terms with a salt of their own."""
        parties = (RENTER.address, SIGNER.address, HOST.address, token)
        expires = quantity((await self.chain.block())["timestamp"]) + 86_400
        return (*parties, PRICE, expires, CHALLENGE, *self.side.middle(), keccak(b"model"), secrets.token_bytes(32))

    def job(self, terms: Tuple) -> JobId:
        """Hash of the terms."""
        return JobId(keccak(encode_arguments([self.side.types], [terms])))

    def digest(self, struct: bytes) -> Hash32:
        """EIP-712 under the side's domain."""
        parts = EIP712_DOMAIN + keccak(self.side.domain) + keccak(b"1") + word(CHAIN_ID) + pad(self.side.address)
        return keccak(b"\x19\x01" + keccak(parts) + keccak(struct))

    def claim(self, terms: Tuple) -> Tuple:
        """A signed voucher for TOKENS tokens."""
        amount = TOKENS * PRICE // 10**6
        struct = keccak(self.side.voucher) + self.job(terms) + word(amount) + word(TOKENS) + TRANSCRIPT
        return (terms, amount, TOKENS, TRANSCRIPT, SIGNER.sign(self.digest(struct)))

    def consent(self, claim: Tuple) -> bytes:
        """The host's `Close`."""
        words = b"".join(word(value) for value in claim[1 : 1 + self.side.close_words])
        return HOST.sign(self.digest(keccak(self.side.close) + self.job(claim[0]) + words))

    async def opened(self, token: Address, kind: str) -> Tuple:
        """A new job."""
        terms = await self.terms(token)
        data = self.side.function("open", "Terms", "uint96").encode(terms, DEPOSIT)
        await self.note(f"open_{kind}", RENTER, data, DEPOSIT if token == ZERO_ADDRESS else 0)
        return terms

    async def close_by_host(self, step: str, claim: Tuple) -> None:
        """With a last voucher, or bare."""
        await self.note(step, HOST, self.side.function("closeByHost", "Claim").encode(claim))

    async def redeem(self, token: Address, size: int, kind: str) -> list[Tuple]:
        """`size` new jobs in one transaction."""
        jobs = [await self.opened(token, kind) for _ in range(size)]
        data = self.side.function("redeem", "Claim[]").encode([self.claim(terms) for terms in jobs])
        await self.note(f"redeem_{size}_{kind}", HOST, data, share=size)
        return jobs

    async def round(self, token: Address, kind: str) -> None:
        """Every call that both have, once."""
        await self.close_by_host(f"close_by_host_{kind}", self.claim(await self.opened(token, kind)))
        (redeemed,) = await self.redeem(token, 1, kind)
        await self.close_by_host(f"close_after_redeem_{kind}", (redeemed, 0, 0, bytes(32), b""))
        claim = self.claim(await self.opened(token, kind))
        together = self.side.function("closeCooperative", "Claim", "bytes")
        await self.note(f"close_cooperative_{kind}", RENTER, together.encode(claim, self.consent(claim)))
        terms = await self.opened(token, kind)
        await self.note(f"request_close_{kind}", RENTER, self.side.function("requestClose", "Terms").encode(terms))
        await self.chain.control.advance(CHALLENGE)
        await self.note(f"finalize_{kind}", HOST, self.side.function("finalize", "Terms").encode(terms))

    async def relayed(self) -> None:
        """A deposit of USDC by EIP-3009, sent by the host."""
        usdc = self.chain.info.usdc
        terms = await self.terms(usdc)
        before = terms[5]
        parties = pad(RENTER.address) + pad(self.side.address)
        struct = keccak(RECEIVE + parties + word(DEPOSIT) + word(0) + word(before) + self.job(terms))
        separator = await self.chain.call(usdc, TestUSDC.encode_domain_separator())
        signature = RENTER.sign(keccak(b"\x19\x01" + separator + struct))
        signed = self.side.function("openWithAuthorization", "Terms", "uint96", "uint256", "bytes")
        await self.note("open_signed_usdc", HOST, signed.encode(terms, DEPOSIT, before, signature))

    async def everything(self, rounds: int) -> None:
        """A round to warm the ledgers, not counted, then `rounds` rounds. A job stays open, so no balance falls to zero."""
        usdc = self.chain.info.usdc
        await self.chain.send(RENTER, usdc, TestUSDC.encode_approve(self.side.address, 2**256 - 1))
        for counted in range(rounds + 1):
            for token, kind in ((ZERO_ADDRESS, "eth"), (usdc, "usdc")):
                await self.round(token, kind)
                if not counted:
                    await self.opened(token, kind)
            if not counted:
                self.figures.clear()
                continue
            await self.relayed()
            await self.redeem(usdc, 10, "usdc")
            await self.redeem(usdc, 25, "usdc")

    async def withdrawals(self) -> None:
        """All that the host earned, to an account that has some already."""
        for token, kind in ((ZERO_ADDRESS, "eth"), (self.chain.info.usdc, "usdc")):
            await self.note(f"withdraw_{kind}", HOST, JobMarketplace.encode_withdraw(token, RENTER.address))


async def proven_session(chain: Chain, prover: EzklProver, run: Measurement) -> None:
    """Policy `required` with a real proof: open, commit, answer the challenge, close with the voucher."""
    terms = await run.opened(chain.info.usdc, "required_usdc")
    job, agreed = run.job(terms), Terms(**dict(zip(Terms.__struct_fields__, terms, strict=True)))
    records = tuple(keccak(b"record%d" % n) for n in range(TOKENS))
    checkpoint = Checkpoint((await prover.commit(records)).digest, Tokens(TOKENS))
    tree = commitments.tree_root((checkpoint,))
    root = commitments.commitment_root(tree.hash, TRANSCRIPT)
    commit = JobMarketplace.encode_commit_proof(AbiTerms(*terms), TOKENS, root)
    made_at = quantity((await run.note("commit_proof", HOST, commit))["blockNumber"])
    await chain.control.mine(SEED_DELAY + 1)
    block_hash = Hash32(bytes.fromhex((await chain.block(hex(made_at + SEED_DELAY)))["hash"][2:]))
    seed = commitments.challenge_seed(block_hash, job, root)
    path = commitments.open_path((checkpoint,), commitments.challenged_position(seed, tree.tokens))
    market = Market(CHAIN_ID, chain.info.market)
    statement = commitments.statement_hash(market, agreed, job, root, tree.tokens, path, prover.circuit_id)
    bundle = await prover.prove(ProofStatement(statement, seed, checkpoint.commitment), records)
    proof = Proof(bundle.circuit_id, tree.hash, TRANSCRIPT, TOKENS, TOKENS, checkpoint.commitment, [], bundle.proof)
    await run.note("submit_proof", HOST, JobMarketplace.encode_submit_proof(AbiTerms(*terms), proof))
    await run.close_by_host("close_by_host_required_usdc", run.claim(terms))


async def signed_checkpoint(chain: Chain, run: Measurement) -> None:
    """The peer's proof: the host's signature over a hash. It pays at once, so no voucher follows."""
    terms = await run.opened(chain.info.usdc, "usdc")
    words = word(CHAIN_ID) + pad(run.side.address) + run.job(terms) + word(0) + word(TOKENS) + TRANSCRIPT
    submit = run.side.function("submitProof", "Terms", "uint64", "bytes32", "bytes")
    await run.note("submit_proof", HOST, submit.encode(terms, TOKENS, TRANSCRIPT, HOST.sign(keccak(words))))
    await run.close_by_host("close_after_proof_usdc", (terms, 0, 0, bytes(32), b""))


async def deploy_peer(chain: Chain) -> Address:
    """Compiled from source by the pinned compiler, with the settings of our own contracts."""
    name = "peers/LeanMarket.sol"
    compiled = build.compile_sources([], {name: PEER_SOURCE.read_text()})["contracts"][name]

    async def create(contract: str, *arguments: Address) -> Address:
        code = bytes.fromhex(compiled[contract]["evm"]["bytecode"]["object"])
        receipt = await chain.send(HOST, None, code + b"".join(pad(argument) for argument in arguments))
        return Address(bytes.fromhex(receipt["contractAddress"][2:]))

    return await create("LeanMarket", TREASURY.address, await create("SignedVerifier", HOST.address))


async def run_both(rpc: JsonRpc, prover: EzklProver, rounds: int) -> dict[str, Any]:
    """Deploy both, measure both, report."""
    operator = Operator(rpc, DEV_KEYS[0])
    chain = Chain(rpc, await operator.deploy(prover.circuit_id, treasury=TREASURY.address))
    await operator.mint(chain.info, RENTER.address, BaseUnits(10**15))
    ours, peer = Measurement(chain, Ours(chain.info.market)), Measurement(chain, Peer(await deploy_peer(chain)))
    for run in (ours, peer):
        await run.everything(rounds)
    proven = Measurement(chain, Ours(chain.info.market, ProofPolicy.REQUIRED))
    await proven_session(chain, prover, proven)
    await signed_checkpoint(chain, peer)
    for run in (ours, peer):
        await run.withdrawals()
    return report(ours.medians() | proven.medians(), peer.medians(), rounds)


def report(ours: dict[str, int], peer: dict[str, int], rounds: int) -> dict[str, Any]:
    """The session in USDC as the claim, every step beside it."""
    sessions = [side["open_usdc"] + side["close_by_host_usdc"] for side in (ours, peer)]
    required = sum(
        ours[step] for step in ("open_required_usdc", "commit_proof", "submit_proof", "close_by_host_required_usdc")
    )
    figures = {
        f"{step}_{kind}gas": value for kind, side in (("", ours), ("peer_", peer)) for step, value in side.items()
    }
    return {
        "claim": "gas of a whole session in USDC (open, closeByHost with the last voucher and refund), against the lean channel",
        "ours": sessions[0],
        "peer": sessions[1],
        "ratio": round(sessions[0] / sessions[1], 4),
        "unit": "gas",
        "n": rounds,
        "session_eth_gas": ours["open_eth"] + ours["close_by_host_eth"],
        "session_eth_peer_gas": peer["open_eth"] + peer["close_by_host_eth"],
        "session_required_ezkl_usdc_gas": required,
        "session_signed_checkpoint_usdc_peer_gas": peer["open_usdc"] + peer["submit_proof"] + peer["close_after_proof_usdc"],
        **dict(sorted(figures.items())),
    }  # fmt: skip


async def measure(quick: bool) -> dict[str, Any]:
    """Start chain and prover, stop them whatever happens."""
    logging.configure(LogSection(level="error"))
    prover = EzklProver(chain_id=CHAIN_ID, cache=paths.cache_dir())
    await prover.start()
    try:
        async with Devnet(await find_anvil(paths.cache_dir())) as net:
            rpc = JsonRpc([net.url], SystemClock())
            try:
                return await run_both(rpc, prover, 1 if quick else 5)
            finally:
                await rpc.close()
    finally:
        await prover.stop()


if __name__ == "__main__":
    main(lambda quick: asyncio.run(measure(quick)), __doc__ or "")
