"""What `settlement_gas` measures with: a chain whose receipts tell the gas, and the calls that our market and its peer both have.

Both sides are called through the same code, so that neither is favoured. Decides nothing about what is reported.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
from typing import Any, ClassVar, Final

from fabstir.chain.abi import Function, encode_arguments
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.chain.bindings import TestUSDC
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, DevnetControl
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ProofPolicy, salt_for
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.signing import EIP712_DOMAIN, SigningKey, keccak

HOST, RENTER, DELEGATE, ARBITER, TREASURY = (SigningKey(DEV_KEYS[n]) for n in (1, 2, 3, 4, 9))
SIGNER: Final = SigningKey(b"\x05" * 32)
TOKENS: Final = 256
PRICE: Final = 200_000_000  # base units for a million tokens, so that 256 tokens are worth 51,200
DEPOSIT: Final = 10_000_000
BOND: Final = 100_000
CHALLENGE: Final = 3_600
DAY: Final = 86_400
MODEL: Final = keccak(b"model")
TRANSCRIPT: Final = keccak(b"transcript")
GAS_LIMIT: Final = 20_000_000
LARGEST: Final = 100
"""Jobs in the largest batch."""
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
        self._sending = asyncio.Lock()

    async def send(self, sender: SigningKey, to: Address | None, data: bytes, value: int = 0) -> dict[str, Any]:
        """The receipt. Stops the benchmark where the call reverts: then there is nothing to measure."""
        call = {"from": to_hex(sender.address), "data": to_hex(data), "value": hex(value), "gas": hex(GAS_LIMIT)}
        async with self._sending:  # anvil counts the nonce of one transaction before it takes the next
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

    def currencies(self) -> tuple[tuple[Address, str], ...]:
        """Each with the end of its steps' names."""
        return (ZERO_ADDRESS, "eth"), (self.info.usdc, "usdc")

    async def now(self) -> int:
        """Unix time of the newest block."""
        return quantity((await self.block())["timestamp"])

    async def block(self, number: str = "latest") -> dict[str, Any]:
        """A block's header."""
        return dict(await self.rpc.request("eth_getBlockByNumber", number, False))


class Ours:
    """JobMarketplace."""

    types: ClassVar[str] = (
        "(address,address,address,address,address,uint96,uint96,uint40,uint32,uint32,uint8,bytes32,bytes32)"
    )
    count: ClassVar[str] = "uint32"
    domain: ClassVar[tuple[bytes, bytes]] = (b"FabstirMarket", b"2")
    voucher: ClassVar[bytes] = b"Voucher(bytes32 jobId,uint96 amount,uint32 tokens,bytes32 transcript)"
    close: ClassVar[bytes] = b"Close(bytes32 jobId,uint96 amount,uint32 tokens)"
    close_words: ClassVar[int] = 2

    def __init__(self, address: Address, policy: ProofPolicy = ProofPolicy.FALLBACK) -> None:
        self.address = address
        self.policy = policy

    def terms(self, token: Address, expires_at: int, salt: bytes) -> Tuple:
        """Between the benchmark's renter and host."""
        return AbiTerms(
            RENTER.address, SIGNER.address, HOST.address, token, ARBITER.address, PRICE, BOND, expires_at, CHALLENGE,
            64, self.policy, MODEL, salt,
        )  # fmt: skip

    def function(self, name: str, *types: str) -> Function:
        """One that both contracts have, over this one's terms."""
        claim = f"({self.types},uint96,{self.count},bytes32,bytes)"
        inputs = [t.replace("Terms", self.types).replace("Claim", claim) for t in types]
        return Function(name, keccak(f"{name}({','.join(inputs)})".encode())[:4].hex(), inputs, [])


class Peer(Ours):
    """LeanMarket."""

    types = "(address,address,address,address,uint96,uint40,uint32,bytes32,bytes32)"
    count = "uint64"
    domain = (b"FabMarket", b"1")
    voucher = b"Voucher(bytes32 sessionId,uint96 amount,uint64 tokens,bytes32 transcript)"
    close = b"Close(bytes32 sessionId,uint96 amount)"
    close_words = 1

    def terms(self, token: Address, expires_at: int, salt: bytes) -> Tuple:
        """Neither arbiter, bond, exposure nor policy."""
        return (
            RENTER.address, SIGNER.address, HOST.address, token, PRICE, expires_at, CHALLENGE, MODEL, salt,
        )  # fmt: skip


class Measurement:
    """The same calls on either of the two, noted by name."""

    def __init__(self, chain: Chain, side: Ours) -> None:
        self.chain = chain
        self.side = side
        self.figures: dict[str, list[int]] = {}

    async def note(
        self, step: str, sender: SigningKey, data: bytes, value: int = 0, share: int = 1, to: Address | None = None
    ) -> dict[str, Any]:
        """Measure one call, of the side or of another contract; `share` jobs bear its cost."""
        receipt = await self.chain.send(sender, to or self.side.address, data, value)
        self.figures.setdefault(step, []).append(quantity(receipt["gasUsed"]) // share)
        return receipt

    def medians(self) -> dict[str, int]:
        """By step."""
        return {step: int(statistics.median(values)) for step, values in self.figures.items()}

    async def terms(self, token: Address, payer: Address | None = None) -> Tuple:
        """New terms with a salt of their own, which names `payer` where it is not the renter that opens."""
        salt = salt_for(payer, secrets.token_bytes(8)) if payer else secrets.token_bytes(32)
        return self.side.terms(token, await self.chain.now() + DAY, salt)

    def job(self, terms: Tuple) -> JobId:
        """Hash of the terms."""
        return JobId(keccak(encode_arguments([self.side.types], [terms])))

    def digest(self, struct: bytes) -> Hash32:
        """EIP-712 under the side's domain."""
        parts = EIP712_DOMAIN + b"".join(map(keccak, self.side.domain)) + word(CHAIN_ID) + pad(self.side.address)
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
        jobs = await asyncio.gather(*(self.opened(token, kind) for _ in range(size)))
        data = self.side.function("redeem", "Claim[]").encode([self.claim(terms) for terms in jobs])
        await self.note(f"redeem_{size}_{kind}", HOST, data, share=size)
        return list(jobs)

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
        before = await self.chain.now() + DAY
        sig = self.authorization(Hash32(self.job(terms)), DEPOSIT, before)
        signed = self.side.function("openWithAuthorization", "Terms", "uint96", "uint256", "bytes")
        await self.note("open_signed_usdc", HOST, signed.encode(terms, DEPOSIT, before, sig))

    def authorization(self, nonce: Hash32, amount: int, before: int) -> bytes:
        """Of the renter's USDC to the side."""
        parties = (self.chain.info.usdc, RENTER.address, self.side.address)
        return RENTER.sign(authorization_digest(CHAIN_ID, *parties, BaseUnits(amount), before, nonce))

    async def everything(self, rounds: int) -> None:
        """A round to warm the ledgers, not counted, then `rounds` rounds. A job stays open, so no balance falls to zero."""
        await self.chain.send(RENTER, self.chain.info.usdc, TestUSDC.encode_approve(self.side.address, 2**256 - 1))
        for counted in range(rounds + 1):
            for token, kind in self.chain.currencies():
                await self.round(token, kind)
                if not counted:
                    await self.opened(token, kind)
            if not counted:
                self.figures.clear()
                continue
            await self.relayed()
            for token, kind in self.chain.currencies():
                for size in (10, 25):
                    await self.redeem(token, size, kind)
        for token, kind in self.chain.currencies():
            await self.redeem(token, LARGEST, kind)

    async def withdrawals(self) -> None:
        """All that the host earned, to an account that has some already."""
        withdraw = Function("withdraw", keccak(b"withdraw(address,address)")[:4].hex(), ["address", "address"], [])
        for token, kind in self.chain.currencies():
            await self.note(f"withdraw_{kind}", HOST, withdraw.encode(token, RENTER.address))
