"""What answers a dispute: the records from what the renter signed last to the head that the host committed.

Whoever hashes along sees that the commitment follows from the renter's own voucher and has one record for each token;
what the records say only the model can tell. Pure; mirrors `Transcript.sol` and `Disputes._checkOpening`.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import Hash32
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import Terms
from fabstir.protocol.host_log import CommitmentMade, HostLedger, ServedTurn
from fabstir.protocol.signing import Market, job_id, recover
from fabstir.protocol.transcript import extend, job_head, turn_head


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """`MarketTypes.Opening`."""

    tree_root: Hash32
    head: Hash32
    tokens: Tokens
    """Committed and proven."""
    first: Tokens
    """Where the records begin: tokens of the last redeemed voucher."""
    transcript: Hash32
    voucher: bytes
    """The renter's signature of that voucher; empty where it never signed."""
    records: tuple[bytes, ...]
    turns: tuple[ServedTurn, ...]


def opening_of(ledger: HostLedger, commitment: CommitmentMade, signed: Tokens) -> Opening:
    """The answer, where the contract has redeemed `signed` tokens. Raises KeyError where that voucher is not known here."""
    voucher = ledger.vouchers[signed] if signed else None
    return Opening(
        tree_root=commitment.tree_root,
        head=commitment.head,
        tokens=commitment.tokens,
        first=signed,
        transcript=voucher.transcript if voucher else Hash32(bytes(32)),
        voucher=voucher.signature if voucher else b"",
        records=ledger.records_between(signed, commitment.tokens - signed),
        turns=tuple(turn for turn in ledger.turns if signed <= turn.tokens < commitment.tokens),
    )


def refusal_of(market: Market, terms: Terms, signed: Tokens, opening: Opening) -> str:
    """The contract's word against `opening`, where it has redeemed `signed` tokens; empty where it holds."""
    if opening.first != signed:
        return "OpeningMismatch"
    head = job_head(market, terms)
    if opening.first:
        amount = cost(opening.first, terms.price)
        digest = market.voucher_digest(job_id(terms), amount, opening.first, opening.transcript)
        if recover(digest, opening.voucher) != terms.signer:
            return "BadSignature"
        head = opening.transcript
    reached = _follow(head, opening)
    if reached is None:
        return "OpeningMalformed"
    return "" if reached == opening.head else "OpeningMismatch"


def _follow(head: Hash32, opening: Opening) -> Hash32 | None:
    """The head after the opening; None where it has not one record for each token, or its turns are out of order."""
    if opening.first > opening.tokens or len(opening.records) != opening.tokens - opening.first:
        return None
    turns = list(reversed(opening.turns))
    for position in range(opening.first, opening.tokens + 1):
        while turns and turns[-1].tokens == position:
            turn = turns.pop()
            head = turn_head(head, turn.message_index, Tokens(position), turn.request)
        if position < opening.tokens:
            head = extend(head, (opening.records[position - opening.first],))
    return None if turns else head
