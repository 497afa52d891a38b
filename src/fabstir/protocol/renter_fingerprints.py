"""Fingerprints of answers on rung 2, as a renter takes them: only of an answer that it waits for, signed by the host of the terms."""

from __future__ import annotations

from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import from_hex, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.messages import Fingerprints, Prompt
from fabstir.protocol.renter_core import RenterCore
from fabstir.protocol.renter_items import FingerprintsKept

AWAITED: Final = 16
"""Answers whose fingerprints may still come; of older ones they are not taken any more."""


def await_fingerprints(core: RenterCore, prompt: Prompt) -> None:
    """Remember what they must be about."""
    if not core.fingerprinting or prompt.score or not core.records:
        return
    core.awaited[prompt.message_index] = FingerprintedAnswer(
        session=core.session,
        message_index=prompt.message_index,
        first=core.answer_starts,
        tokens=Tokens(len(core.records)),
        transcript=core.transcript.head,
    )
    if len(core.awaited) > AWAITED:
        del core.awaited[next(iter(core.awaited))]


def fingerprints(core: RenterCore, item: Fingerprints) -> None:
    """They come some time after their answer, or never. Of an answer that is not waited for they are nobody's concern."""
    of = core.awaited.get(item.message_index)
    if of is None or item.session_id != of.session:
        return
    if (item.first, item.tokens, item.transcript) != (of.first, of.tokens, to_hex(of.transcript)):
        raise error("fingerprints_invalid", f"of another answer than was received with index {item.message_index}")
    if not of.fits(item.fingerprints):
        raise error("fingerprints_invalid", f"{len(item.fingerprints)} of them for {of.tokens} tokens")
    ledger, signature = core.ledger, from_hex(item.signature, 65)
    if of.signed_by(ledger.market, ledger.job, item.fingerprints, signature) != ledger.terms.host:
        raise error("fingerprints_invalid", "not signed by the host of the terms")
    del core.awaited[item.message_index]
    core.out.append(FingerprintsKept(of, item.fingerprints, item.signature))
