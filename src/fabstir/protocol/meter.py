"""The host's meter of one job: counts tokens as they go out, issues receipts, accepts vouchers, bounds the exposure.

It turns the ledger (what is in the log) and the tokens of the last moment (not yet in the log) into one number, `served`.
It decides nothing about answers or connections; that is `host_session`. Every method that changes the log returns the
events to store.
"""

from __future__ import annotations

from hashlib import sha256

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, SessionId, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.held_records import HeldAnswer, HeldRecords
from fabstir.protocol.host_log import HostEvent, HostLedger, Resynced, TokensServed, VoucherAccepted
from fabstir.protocol.messages import Receipt, ReceiptAck, SessionInit, SessionResume, amount_of
from fabstir.protocol.signing import SigningKey, recover
from fabstir.protocol.transcript import Sampler, TokenRecord, record_preimage


class Meter:
    """Counts one job's tokens.

    Memory: digests of the tokens since the last receipt (at most W/2), and the heads of receipts that wait for a voucher.
    """

    def __init__(self, ledger: HostLedger, key: SigningKey, held: HeldRecords | None = None) -> None:
        self._ledger = ledger
        self._key = key
        self._held = held
        self._unsaved: list[bytes] = []
        self._issued: dict[int, Hash32] = {}
        """Receipts that wait for a voucher: tokens -> head."""

    @property
    def served(self) -> Tokens:
        """Tokens that went out, stored or not."""
        return Tokens(self._ledger.served + len(self._unsaved))

    @property
    def room(self) -> int:
        """Tokens that may go out before the exposure bound is reached."""
        return self._ledger.acknowledged + self._ledger.terms.exposure - self.served

    @property
    def left(self) -> int:
        """Tokens that the deposit still pays for."""
        return self._ledger.affordable - self.served

    @property
    def receipt_due(self) -> bool:
        """Half of W is out since the last receipt: its voucher travels while the other half streams."""
        return len(self._unsaved) >= max(1, self._ledger.terms.exposure // 2)

    def serve(
        self, salt: Hash32, records: tuple[TokenRecord, ...], sampler: Sampler, answer: HeldAnswer | None = None
    ) -> Tokens:
        """Count `records` of `answer` as served; returns the position of the first."""
        first = self.served
        for record in records:
            preimage = record_preimage(salt, self.served, record, sampler)
            digest = sha256(preimage).digest()
            self._unsaved.append(digest)
            if self._held is not None:
                self._held.keep(digest, preimage, answer)
        return first

    def record(self, *events: HostEvent) -> tuple[HostEvent, ...]:
        """Tokens not yet stored, then `events`: applied to the ledger, to be stored by the caller."""
        saved = (TokensServed(b"".join(self._unsaved)),) if self._unsaved else ()
        self._unsaved = []
        everything: tuple[HostEvent, ...] = (*saved, *events)
        for event in everything:
            self._ledger.apply(event)
        return everything

    def receipt(self, session: SessionId) -> Receipt | None:
        """The signed receipt over everything stored; None where all of it is acknowledged or its receipt is on the way (a
        second voucher for it would be refused, and an honest renter would be told of an error).
        """
        ledger = self._ledger
        tokens = ledger.served
        if tokens <= ledger.acknowledged or tokens in self._issued:
            return None
        head, amount = ledger.heads[tokens], ledger.amount(tokens)
        self._issued[tokens] = head
        digest = ledger.market.receipt_digest(ledger.job, amount, tokens, ledger.tokens_in, head)
        return Receipt(
            session_id=session,
            tokens=tokens,
            amount=str(amount),
            tokens_in=ledger.tokens_in,
            transcript=to_hex(head),
            signature=to_hex(self._key.sign(digest)),
        )

    def accept(self, ack: ReceiptAck) -> tuple[HostEvent, ...]:
        """Check a voucher against its receipt. Raises PeerFault (`voucher_*`)."""
        ledger, tokens, amount = self._ledger, Tokens(ack.tokens), amount_of(ack.amount)
        if amount > ledger.deposit:
            raise error("voucher_above_deposit", f"{amount} of {ledger.deposit}")
        if tokens <= ledger.acknowledged:
            raise error("voucher_stale", f"{tokens} tokens, {ledger.acknowledged} are acknowledged already")
        head = self._issued.get(tokens)
        if head is None or amount != ledger.amount(tokens) or ack.transcript != to_hex(head):
            raise error("voucher_invalid", f"no receipt says this about {tokens} tokens")
        signature = bytes.fromhex(ack.signature[2:])
        if recover(ledger.market.voucher_digest(ledger.job, amount, tokens, head), signature) != ledger.terms.signer:
            raise error("voucher_invalid", "not signed by the session key")
        voucher = VoucherAccepted(tokens, amount, head, signature)
        ledger.apply(voucher)
        self._issued = {n: h for n, h in self._issued.items() if n > tokens}
        return (voucher,)

    def agree(self, message: SessionInit | SessionResume) -> tuple[HostEvent, ...]:
        """Settle where both sides continue: the smaller of both counts, if the transcripts agree there. `session_init` says that the
        renter has nothing of this job yet. Raises PeerFault (`transcript_mismatch`).
        """
        ledger = self._ledger
        tokens = ledger.served
        received = message.tokens_received if isinstance(message, SessionResume) else 0
        if received <= tokens:
            tokens = Tokens(received)
            if tokens < max(ledger.acknowledged, ledger.checkpointed):
                raise error("transcript_mismatch", f"{tokens} tokens lie before the acknowledged {ledger.acknowledged}")
            claimed = message.transcript if isinstance(message, SessionResume) else None
            if claimed is not None and claimed != to_hex(ledger.heads[tokens]):
                raise error("transcript_mismatch", f"the heads differ at {tokens} tokens")
        # else the renter has more than the log holds: it rewinds itself to `tokens_served`
        self._issued.clear()
        head = ledger.heads[tokens]
        if head == ledger.head:
            return ()
        return self.record(Resynced(tokens, head))
