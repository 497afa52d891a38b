"""What a renter signs: a receipt that says exactly what was received, at the price of the terms. Nothing else."""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.domain.ids import from_hex, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.messages import PaymentReceived, PaymentRequired, Receipt, ReceiptAck, amount_of
from fabstir.protocol.renter_core import RenterCore
from fabstir.protocol.renter_items import PaymentDue, PaymentSeen, SendHost
from fabstir.protocol.renter_log import VoucherSigned
from fabstir.protocol.signing import recover


def receipt(core: RenterCore, item: Receipt) -> None:
    """Check it, sign the voucher, and have it on disk before it is sent."""
    ledger, tokens, amount = core.ledger, Tokens(item.tokens), amount_of(item.amount)
    if tokens != core.received or amount != ledger.amount(tokens):
        raise error("receipt_invalid", f"receipt over {tokens} tokens and {amount}; received {core.received}")
    head = core.heads[tokens]
    if item.transcript != to_hex(head):
        raise error("receipt_invalid", f"another transcript than what was received at {tokens} tokens")
    if amount > ledger.deposit:
        raise error("receipt_invalid", f"{amount} is above the deposit {ledger.deposit}")
    voucher, tokens_in, receipt = ledger.voucher, Tokens(item.tokens_in), from_hex(item.signature, 65)
    if voucher is not None and tokens_in < voucher.tokens_in:
        raise error("receipt_invalid", f"{tokens_in} tokens of prompts; it was {voucher.tokens_in} before")
    if recover(ledger.market.receipt_digest(ledger.job, amount, tokens, tokens_in, head), receipt) != ledger.terms.host:
        raise error("receipt_invalid", "not signed by the host of the terms")
    if voucher is None or tokens > voucher.tokens:
        signature = core.key.sign(ledger.market.voucher_digest(ledger.job, amount, tokens, head))
        voucher = VoucherSigned(tokens, amount, head, signature, receipt, tokens_in)
        core.record(voucher)
        core.heads = {n: h for n, h in core.heads.items() if n >= tokens}
    core.out.append(
        SendHost(
            ReceiptAck(
                session_id=core.session,
                tokens=voucher.tokens,
                amount=str(voucher.amount),
                transcript=to_hex(voucher.transcript),
                signature=to_hex(voucher.signature),
            )
        )
    )


def payment_required(core: RenterCore, item: PaymentRequired) -> None:
    """The deposit will soon be used up."""
    core.out.append(PaymentDue(max(0, item.tokens_affordable - core.received)))


def payment_received(core: RenterCore, item: PaymentReceived) -> None:
    """The host has seen the deposit."""
    core.out.append(PaymentSeen(amount_of(item.deposit)))
