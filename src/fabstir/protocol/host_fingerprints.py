"""Fingerprints of answers on rung 2: when a host makes them, and how it signs them."""

from __future__ import annotations

from fabstir.domain.ids import to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol import tool_text
from fabstir.protocol.answer import Answer
from fabstir.protocol.effects import RunFingerprints
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import FingerprintsMade
from fabstir.protocol.messages import ChatMessage, Fingerprints
from fabstir.protocol.rungs import Rung


def fingerprint(core: HostCore, answer: Answer, messages: tuple[ChatMessage, ...]) -> None:
    """For a job that was admitted on rung 2 and pays for it; a scored answer is another host's, and one with an adapter another model's."""
    ledger = core.ledger
    if not core.offer.fingerprints or ledger.rung != Rung.FINGERPRINTS or answer.prompt.score or not answer.ids:
        return
    if answer.prompt.adapter:
        return  # the weights that are read again are without it
    of = FingerprintedAnswer(
        session=core.session,
        message_index=answer.prompt.message_index,
        first=Tokens(ledger.served - len(answer.ids)),
        tokens=Tokens(len(answer.ids)),
        transcript=ledger.head,
    )
    plain = tool_text.plain(messages, answer.prompt)
    core.out.append(RunFingerprints(of, plain, answer.prompt.prefix, tuple(answer.ids)))


def fingerprints_made(core: HostCore, item: FingerprintsMade, now: float) -> None:
    """Nothing where another session has begun since: its renter knows that answer by another connection, or not at all."""
    of, ledger = item.of, core.ledger
    if of.session != core.session:
        return
    core.send(
        Fingerprints(
            session_id=of.session,
            message_index=of.message_index,
            first=of.first,
            tokens=of.tokens,
            transcript=to_hex(of.transcript),
            fingerprints=item.fingerprints,
            signature=to_hex(core.key.sign(of.digest(ledger.market, ledger.job, item.fingerprints))),
        )
    )
