"""The host's log of one job, and its fold. Counts, hashes and signatures; never what was said.

`HostLedger` is the only record of what a job owes, is owed and must prove: meter, vouchers, proof obligations and
conversation position are derived from the same events, so they cannot disagree after a crash. Live and replay take the
same road: `apply(event)`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import Hash32, JobId, SessionId
from fabstir.domain.money import BaseUnits, Tokens, affordable, cost
from fabstir.domain.terms import Terms
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.epochs import EpochPlace
from fabstir.protocol.signing import Market, job_id, keccak
from fabstir.protocol.transcript import extend, job_head, turn_head

DIGEST: Final = 32
SESSION_TAG: Final = 8
"""Bytes that tell the sessions of one job apart."""


class JobAdmitted(msgspec.Struct, frozen=True, tag="job_admitted"):
    """The job was checked on chain; first event of its stream."""

    terms: Terms
    deposit: BaseUnits
    market: Market
    at: float
    model: str = ""
    """What this host called the model; "" in logs of before this was written."""
    rung: int | None = None
    """Of the ladder of verification, as the renter named it and paid for it."""


class DepositRaised(msgspec.Struct, frozen=True, tag="deposit_raised"):
    """Seen on chain: the job was topped up."""

    deposit: BaseUnits


class TurnStarted(msgspec.Struct, frozen=True, tag="turn_started"):
    """A prompt was accepted; `request` is its salted hash."""

    message_index: int
    request: Hash32
    session: bytes = b""
    """`session_tag` of who asked; empty in logs of before this was written."""


class TokensServed(msgspec.Struct, frozen=True, tag="tokens_served"):
    """Tokens went out; `records` are their digests, 32 bytes each. Written before the receipt that counts them."""

    records: bytes


class VoucherAccepted(msgspec.Struct, frozen=True, tag="voucher_accepted"):
    """The renter signed for everything up to `tokens`."""

    tokens: Tokens
    amount: BaseUnits
    transcript: Hash32
    signature: bytes


class TurnEnded(msgspec.Struct, frozen=True, tag="turn_ended"):
    """Reason: stop, length, deposit, cancelled, or the code of the error that cut it off."""

    message_index: int
    reason: str
    tokens_in: Tokens = Tokens(0)
    """Of its prompt, by the engine; 0 where it was cut off before the engine said so."""


class Resynced(msgspec.Struct, frozen=True, tag="resynced"):
    """After a drop both sides agreed to continue from here; tokens beyond were not delivered and are not billed."""

    tokens: Tokens
    head: Hash32


class SessionFinished(msgspec.Struct, frozen=True, tag="session_finished"):
    """Nothing more will be served; the job is to be settled and closed."""

    reason: str
    released: bool = False
    """The host signed `Close` over what was acknowledged: nothing beyond it is ever claimed."""


class CheckpointClosed(msgspec.Struct, frozen=True, tag="checkpoint_closed"):
    """The next `tokens` records are committed."""

    commitment: Hash32
    opening: bytes
    tokens: Tokens


class CheckpointRenewed(msgspec.Struct, frozen=True, tag="checkpoint_renewed"):
    """The records of closed checkpoint `index` are committed otherwise from now on: what the first commitment needs was lost."""

    index: int
    commitment: Hash32
    opening: bytes


class CommitmentMade(msgspec.Struct, frozen=True, tag="commitment_made"):
    """Intent: this tree is about to be committed on chain."""

    tokens: Tokens
    tree_root: Hash32
    head: Hash32
    checkpoints: int


class EpochJoined(msgspec.Struct, frozen=True, tag="epoch_joined"):
    """Intent: this session is about to be committed in an epoch, with the first `checkpoints` of its tree. Holds its way to the
    root, so that it can be opened and redeemed from this log alone."""

    place: EpochPlace
    checkpoints: int


class ProofAccepted(msgspec.Struct, frozen=True, tag="proof_accepted"):
    """The contract took the proof of the last commitment."""

    tokens: Tokens
    prove_seconds: float
    gas_used: int


class Credited(msgspec.Struct, frozen=True, tag="credited"):
    """Seen on chain before the job was over: `owed` is credited so far, host's part and fee together; not what a claim holds."""

    owed: BaseUnits
    at: float


class JobClosed(msgspec.Struct, frozen=True, tag="job_closed"):
    """Seen on chain: closed, and no claim undecided; last event of the stream."""

    owed: BaseUnits
    refund: BaseUnits
    at: float


class ServedTurn(msgspec.Struct, frozen=True):
    """The beginning of an answer within the stream: `tokens` had been served in the job by then."""

    tokens: Tokens
    message_index: int
    request: Hash32


HostEvent = (
    JobAdmitted
    | DepositRaised
    | TurnStarted
    | TokensServed
    | VoucherAccepted
    | TurnEnded
    | Resynced
    | SessionFinished
    | CheckpointClosed
    | CheckpointRenewed
    | CommitmentMade
    | EpochJoined
    | ProofAccepted
    | Credited
    | JobClosed
)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[HostEvent]] = msgspec.msgpack.Decoder(HostEvent)


def session_tag(job: JobId, session: SessionId) -> bytes:
    """Counts sessions without keeping what a renter called them."""
    return keccak(job + session.encode())[:SESSION_TAG]


def encode_event(event: HostEvent) -> bytes:
    """As it stands in the journal (msgpack)."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> HostEvent:
    """Raises msgspec.MsgspecError on bytes that no version of this program wrote."""
    return _decoder.decode(data)


class HostLedger:
    """The fold of one job's log.

    Memory: one 32-byte digest for each served token (needed to answer a challenge), one head for each token that is not acknowledged
    yet, the vouchers since the last redeemed one.
    """

    def __init__(self, admitted: JobAdmitted) -> None:
        self.terms: Final[Terms] = admitted.terms
        self.market: Final[Market] = admitted.market
        self.job: Final[JobId] = job_id(admitted.terms)
        self.rung: Final = admitted.rung
        self.deposit = admitted.deposit
        self.admitted_at: Final = admitted.at
        self.records: list[bytes] = []
        self.head = job_head(admitted.market, admitted.terms)
        self.heads: dict[int, Hash32] = {0: self.head}
        """Position -> head, from the acknowledged position to the served one; before a turn's mixing at a turn's start."""
        self.turns: list[ServedTurn] = []
        """Where answers began, in order; with the records they lead from any head to a later one."""
        self.voucher: VoucherAccepted | None = None
        self.vouchers: dict[Tokens, VoucherAccepted] = {}
        """By their tokens, from the last redeemed one on (`forget_vouchers`)."""
        self.message_index = 0
        """Index that the next prompt must have."""
        self.in_turn = False
        self.tokens_in = Tokens(0)
        """Of all prompts."""
        self.checkpoints: list[Checkpoint] = []
        self.checkpointed = Tokens(0)
        self.commitment: CommitmentMade | None = None
        self.committed: tuple[Checkpoint, ...] = ()
        """The checkpoints of `commitment`, as they were when it was made."""
        self.epoch: EpochJoined | None = None
        """The last epoch that this session was put into."""
        self.joined: tuple[Checkpoint, ...] = ()
        """The checkpoints of `epoch`, as they were when it was joined."""
        self._beyond: dict[int, VoucherAccepted] = {}
        """Tokens -> voucher, from the end of the closed checkpoints on."""
        self.proofs: list[ProofAccepted] = []
        self.credited = BaseUnits(0)
        """What the contract was last seen to have credited while the job is open."""
        self.finished = ""
        self.released = False
        self.closed: JobClosed | None = None

    @classmethod
    def replay(cls, events: list[HostEvent]) -> HostLedger:
        """The ledger after `events`. Raises ValueError where they do not begin with JobAdmitted."""
        if not events or not isinstance(events[0], JobAdmitted):
            raise ValueError("a job's log begins with job_admitted")
        ledger = cls(events[0])
        for event in events[1:]:
            ledger.apply(event)
        return ledger

    @property
    def served(self) -> Tokens:
        """Tokens that went out and are billed for."""
        return Tokens(len(self.records))

    @property
    def acknowledged(self) -> Tokens:
        """Tokens that the renter signed for."""
        return self.voucher.tokens if self.voucher else Tokens(0)

    @property
    def covered(self) -> VoucherAccepted | None:
        """The voucher that ends where the closed checkpoints end: a proof of them lets the host redeem it, however many newer ones
        there are."""
        return self._beyond.get(self.checkpointed)

    @property
    def exposed(self) -> int:
        """Served and not signed for: never above W."""
        return self.served - self.acknowledged

    @property
    def unproven(self) -> int:
        """Signed for, and in no proof that the contract accepted."""
        return max(0, self.acknowledged - max((proof.tokens for proof in self.proofs), default=0))

    @property
    def affordable(self) -> Tokens:
        """What the deposit pays for, from the start of the job."""
        return affordable(self.deposit, self.terms.price)

    def amount(self, tokens: Tokens) -> BaseUnits:
        """Cumulative price of `tokens`."""
        return cost(tokens, self.terms.price)

    def records_between(self, first: int, count: int) -> tuple[bytes, ...]:
        """Digests of `count` tokens from `first`."""
        return tuple(self.records[first : first + count])

    def head_at(self, tokens: Tokens) -> Hash32 | None:
        """The head after `tokens` tokens, for positions between the acknowledged and the served one."""
        return self.heads.get(tokens)

    def forget_vouchers(self, redeemed: Tokens) -> None:
        """The contract has redeemed so many tokens: older vouchers are worth nothing, and no dispute begins there."""
        if self.vouchers and min(self.vouchers) < redeemed:
            self.vouchers = {tokens: voucher for tokens, voucher in self.vouchers.items() if tokens >= redeemed}

    def apply(self, event: HostEvent) -> None:
        """Take one event in."""
        match event:
            case TurnStarted():
                self.turns.append(ServedTurn(self.served, event.message_index, event.request))
                self.head = turn_head(self.head, event.message_index, self.served, event.request)
                self.message_index = event.message_index + 1
                self.in_turn = True
            case TokensServed():
                self._serve(event.records)
            case VoucherAccepted():
                self.voucher = event
                self.vouchers[event.tokens] = event
                self.heads = {n: h for n, h in self.heads.items() if n >= event.tokens}
                self._beyond[event.tokens] = event
            case TurnEnded():
                self.in_turn = False
                self.tokens_in = Tokens(self.tokens_in + event.tokens_in)
            case Resynced():
                del self.records[event.tokens :]
                self.turns = [turn for turn in self.turns if turn.tokens < event.tokens]
                self.head = event.head
                self.heads = {n: h for n, h in self.heads.items() if n < event.tokens} | {event.tokens: event.head}
            case SessionFinished():
                self.finished, self.released = event.reason, event.released
            case CheckpointClosed() | CheckpointRenewed():
                self._commit(event)
            case CommitmentMade() | EpochJoined():
                self._intend(event)
            case ProofAccepted():
                self.proofs.append(event)
            case Credited():
                self.credited = event.owed
            case JobClosed():
                self.closed = event
            case JobAdmitted() | DepositRaised():
                self.deposit = event.deposit

    def _commit(self, event: CheckpointClosed | CheckpointRenewed) -> None:
        if isinstance(event, CheckpointRenewed):
            self.checkpoints[event.index] = Checkpoint(event.commitment, self.checkpoints[event.index].tokens)
            return
        self.checkpoints.append(Checkpoint(event.commitment, event.tokens))
        self.checkpointed = Tokens(self.checkpointed + event.tokens)
        self._beyond = {n: v for n, v in self._beyond.items() if n >= self.checkpointed}

    def _intend(self, event: CommitmentMade | EpochJoined) -> None:
        checkpoints = tuple(self.checkpoints[: event.checkpoints])
        if isinstance(event, EpochJoined):
            self.epoch, self.joined = event, checkpoints
        else:
            self.commitment, self.committed = event, checkpoints

    def _serve(self, records: bytes) -> None:
        for at in range(0, len(records), DIGEST):
            digest = records[at : at + DIGEST]
            self.records.append(digest)
            self.head = extend(self.head, (digest,))
            self.heads[len(self.records)] = self.head

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.finished or "open"
        return f"<HostLedger {self.job.hex()[:8]} {state}: served {self.served}, acknowledged {self.acknowledged}>"
