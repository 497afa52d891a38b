"""What a host served in one job of the market's state machine: records, answers and vouchers, and the opening that follows from them.

Folded by the host's own `HostLedger`, so that head, turns and opening are the product's. Grows as far as somebody asks; never rewinds.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.chain.bindings import Claim, Turn
from fabstir.chain.bindings import Opening as AbiOpening
from fabstir.domain.ids import ZERO_HASH, Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.host_log import (
    CommitmentMade,
    HostLedger,
    JobAdmitted,
    ServedTurn,
    TokensServed,
    TurnStarted,
    VoucherAccepted,
)
from fabstir.protocol.opening import Opening, opening_of
from fabstir.protocol.signing import Market, keccak

TURNS: Final = (0, 0, 1, 63, 64, 64, 100, 256, 700)
"""Tokens served where an answer began; two at one place: the first of them got no token."""
FLAWS: Final = (
    "record", "record missing", "record too many", "turn missing", "turn elsewhere", "turns swapped", "turn behind", "turn at the end",
    "request", "message", "from", "transcript", "voucher", "tokens", "head", "tree",
)  # fmt: skip


class Stream:
    """One job's transcript."""

    def __init__(self, market: Market, terms: Terms) -> None:
        self.ledger = HostLedger(JobAdmitted(terms, BaseUnits(0), market, 0.0))
        self.heads = [self.ledger.head]
        self.proven: CommitmentMade | None = None
        """The last commitment whose proof was accepted."""

    def head(self, tokens: int) -> Hash32:
        """After so many tokens, before an answer that begins there."""
        while len(self.heads) <= tokens:
            served = self.ledger.served
            for _ in range(TURNS.count(served)):
                index = self.ledger.message_index
                self.ledger.apply(TurnStarted(index, keccak(b"request%d" % index)))
            self.ledger.apply(TokensServed(keccak(b"record%d" % served)))
            self.heads.append(self.ledger.head)
        return self.heads[tokens]

    def redeemed(self, claim: Claim) -> None:
        """The contract took this voucher."""
        self.head(claim.tokens)
        transcript = Hash32(claim.transcript)
        self.ledger.apply(VoucherAccepted(Tokens(claim.tokens), BaseUnits(claim.amount), transcript, claim.sig))

    def opening(self, signed: Tokens) -> Opening:
        """As an honest host answers, where the contract has redeemed `signed` tokens."""
        assert self.proven is not None, "there is no claim without a proof"
        return opening_of(self.ledger, self.proven, signed)


def spoil(opening: Opening, flaw: str) -> Opening:
    """`opening` with one thing wrong; itself where there is nothing to spoil."""
    return msgspec.structs.replace(opening, **_changes(opening, flaw))


def _changes(opening: Opening, flaw: str) -> dict[str, object]:
    records, turns, tokens = opening.records, opening.turns, opening.tokens
    always: dict[str, dict[str, object]] = {
        "record too many": {"records": (*records, ZERO_HASH)},
        "turn behind": {"turns": (*turns, ServedTurn(Tokens(tokens + 1), 99, ZERO_HASH))},
        "turn at the end": {"turns": (*turns, ServedTurn(tokens, 99, ZERO_HASH))},
        "from": {"first": Tokens(opening.first + 1)},
        "transcript": {"transcript": keccak(opening.transcript)},
        "voucher": {"voucher": bytes(65)},
        "tokens": {"tokens": Tokens(tokens + 1)},
        "head": {"head": keccak(opening.head)},
        "tree": {"tree_root": keccak(opening.tree_root)},
    }
    if records:
        always["record"] = {"records": (*records[:-1], ZERO_HASH)}
        always["record missing"] = {"records": records[1:]}
    return always.get(flaw) or ({"turns": _spoilt_turns(turns, flaw)} if turns else {})


def _spoilt_turns(turns: tuple[ServedTurn, ...], flaw: str) -> tuple[ServedTurn, ...]:
    first, last, replace = turns[0], turns[-1], msgspec.structs.replace
    return {
        "turn missing": turns[:-1],
        "turn elsewhere": (*turns[:-1], replace(last, tokens=Tokens(last.tokens + 1))),
        "turns swapped": turns[::-1],
        "request": (replace(first, request=ZERO_HASH), *turns[1:]),
        "message": (replace(first, message_index=77), *turns[1:]),
    }.get(flaw, turns)


def abi_opening(opening: Opening) -> AbiOpening:
    """As the bindings take it."""
    turns = [Turn(turn.tokens, turn.message_index, turn.request) for turn in opening.turns]
    return AbiOpening(
        opening.tree_root, opening.head, opening.tokens, opening.first, opening.transcript, opening.voucher,
        list(opening.records), turns,
    )  # fmt: skip
