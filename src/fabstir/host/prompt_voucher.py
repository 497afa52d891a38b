"""Takes the renter's voucher for a whole answer: its signature over what the host served, which pays without a claim.

Under policy `fallback` it is waited for: a proof and a claim would cost gas, and the claim be held for its window. Everything
is checked against the market job's own ledger; what does not fit is refused and changes nothing.
"""

from __future__ import annotations

from typing import Final

import structlog

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.host.jobs import JobBook
from fabstir.protocol.host_log import HostLedger, VoucherAccepted
from fabstir.protocol.signing import recover

PATIENCE_SECONDS: Final = 300.0
"""A third of the shortest challenge window: a renter that asks to close meanwhile gets nothing back that the host could claim."""
HANDED_OVER: Final = "prompt_completed"
"""As `prompt_job.handover` ends the log of the market job."""

log = structlog.get_logger("fabstir.prompts")


def awaits_voucher(ledger: HostLedger, now: float) -> bool:
    """The answer is there, and its renter may still sign for it."""
    mine = ledger.finished == HANDED_OVER and ledger.terms.policy is ProofPolicy.FALLBACK
    return mine and ledger.acknowledged == 0 and now - ledger.admitted_at < PATIENCE_SECONDS


async def accept_voucher(
    book: JobBook, job: JobId, tokens: Tokens, amount: BaseUnits, head: bytes, signature: bytes
) -> Tokens:
    """Store it; returns how many tokens are newly signed for: none where it came before.

    Raises `job_closed`, `voucher_invalid`, `journal_failed`.
    """
    ledger = book.get(job)
    if ledger is None:
        raise error("job_closed", "the market job is settled")
    if (tokens, amount, head) != (ledger.served, ledger.amount(ledger.served), ledger.head):
        raise error("voucher_invalid", f"the answer has {ledger.served} tokens, costs {ledger.amount(ledger.served)}")
    digest = ledger.market.voucher_digest(job, amount, tokens, Hash32(head))
    if recover(digest, signature) != ledger.terms.signer:
        raise error("voucher_invalid", "somebody else signed it")
    async with book.exclusive(ledger):
        newly = Tokens(max(0, tokens - ledger.acknowledged))
        if newly:
            await book.record(ledger, VoucherAccepted(tokens, amount, Hash32(head), signature))
            log.info("prompt_signed", job_id=job, tokens=tokens)
        return newly
