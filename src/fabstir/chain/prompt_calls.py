"""The prompt board, as one account uses it (`PromptBoard.sol`), and its events as domain types.

Blocks are found by their time (bisection over headers, which every endpoint keeps), so that nobody has to know how long a
block takes. Decides nothing.
"""

from __future__ import annotations

from typing import Any, Final

from fabstir.chain import bindings
from fabstir.chain.calls import Calls, ask
from fabstir.chain.follower import SPAN, LogFollower
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptId, PromptState, PromptStatus, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.chain import TxResult
from fabstir.ports.clock import Clock
from fabstir.ports.prompts import BoardEvent
from fabstir.protocol.prompt_signing import escrow_of

_BOARD: Final = bindings.PromptBoard
CLOCK_SLACK: Final = 900.0
"""Seconds by which whoever wrote down a time may be ahead of the chain."""


class PromptCalls(Calls):
    """Part of `MarketClient`."""

    _clock: Clock

    # -- reads
    async def prompt(self, prompt: PromptId) -> PromptStatus:
        """All zero where nobody posted it."""
        found = await self._call(self._info.board, _BOARD.encode_prompts(prompt), _BOARD.decode_prompts)
        return PromptStatus(
            state=PromptState(found.state),
            host=found.host,
            until=found.until,
            price=PricePerMTok(found.price),
            escrow=BaseUnits(found.escrow),
        )

    async def completion(self, prompt: PromptId, since: float) -> PromptCompletion | None:
        """The event of its completion; None where there is none since then."""
        first = await self._block_at(since - CLOCK_SLACK)
        last = quantity(await ask(self._rpc, "eth_blockNumber"))
        topics = [to_hex(bindings.PromptCompleted.TOPIC), to_hex(prompt)]
        while first <= last:
            end = min(first + SPAN - 1, last)
            query = {
                "address": to_hex(self._info.board),
                "fromBlock": hex(first),
                "toBlock": hex(end),
                "topics": topics,
            }
            for log in await ask(self._rpc, "eth_getLogs", query):
                event = _BOARD.EVENTS[bindings.PromptCompleted.TOPIC].decode(log)
                return completion_of(event)
            first = end + 1
        return None

    async def follow_board(self, since: float) -> BoardFollower:
        """The board's events from then on."""
        start = await self._block_at(since - CLOCK_SLACK)
        return BoardFollower(self._rpc, self._clock, self._info.board, start)

    async def _block_at(self, time: float) -> int:
        """The first block that is not before `time`, or the newest one."""
        low, high = 0, quantity(await ask(self._rpc, "eth_blockNumber"))
        while low < high:
            middle = (low + high) // 2
            block = await ask(self._rpc, "eth_getBlockByNumber", hex(middle), False)
            if block is None or quantity(block["timestamp"]) < time:
                low = middle + 1
            else:
                high = middle
        return low

    # -- writes
    async def approve_board(self, key: str, token: Address, amount: BaseUnits) -> TxResult:
        """Let the board take `amount`."""
        return await self._send(key, token, bindings.TestUSDC.encode_approve(self._info.board, amount))

    async def post_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        """Deposit the escrow."""
        value = escrow_of(terms) if terms.token == ZERO_ADDRESS else 0
        return await self._board(key, _BOARD.encode_post(abi_prompt(terms)), value)

    async def post_prompt_with_authorization(
        self, key: str, terms: PromptTerms, valid_before: int, signature: bytes
    ) -> TxResult:
        """Relay a renter's signed escrow (EIP-3009)."""
        data = _BOARD.encode_post_with_authorization(abi_prompt(terms), valid_before, signature)
        return await self._board(key, data)

    async def claim_prompt(self, key: str, terms: PromptTerms, host: Address) -> TxResult:
        """Take it, at the registry's price."""
        return await self._board(key, _BOARD.encode_claim(abi_prompt(terms), host))

    async def assign_prompts(self, key: str, pairs: tuple[tuple[PromptTerms, Address], ...]) -> TxResult:
        """Reserve each prompt for its host."""
        if len(pairs) == 1:
            terms, host = pairs[0]
            return await self._board(key, _BOARD.encode_assign_job_to_host(abi_prompt(terms), host))
        prompts, hosts = [abi_prompt(terms) for terms, _ in pairs], [host for _, host in pairs]
        return await self._board(key, _BOARD.encode_assign_jobs_to_hosts(prompts, hosts))

    async def release_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        """Give the claim back."""
        return await self._board(key, _BOARD.encode_release(abi_prompt(terms)))

    async def complete_prompt(
        self, key: str, terms: PromptTerms, tokens: Tokens, result_cid: Cid, result_hash: Hash32
    ) -> TxResult:
        """Commit the answer and open the market job."""
        answer = bindings.Completion(tokens, result_cid, result_hash)
        return await self._board(key, _BOARD.encode_complete(abi_prompt(terms), answer))

    async def cancel_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        """Take the escrow back while nobody works."""
        return await self._board(key, _BOARD.encode_cancel(abi_prompt(terms)))

    async def refund_prompt(self, key: str, terms: PromptTerms) -> TxResult:
        """Give the renter its escrow back after the deadline."""
        return await self._board(key, _BOARD.encode_refund(abi_prompt(terms)))

    async def set_claim_delegate(self, key: str, delegate: Address, until: int) -> TxResult:
        """Let `delegate` claim and release for this account."""
        return await self._board(key, _BOARD.encode_set_claim_delegate(delegate, until))

    async def _board(self, key: str, data: bytes, value: int = 0) -> TxResult:
        return await self._send(key, self._info.board, data, value)


class BoardFollower:
    """`BoardFeed` over a `LogFollower`. What a reorganisation takes back is not handed out: the state is asked for anyway."""

    def __init__(self, rpc: JsonRpc, clock: Clock, board: Address, start: int) -> None:
        self._follower = LogFollower[BoardEvent](rpc, clock, (board,), _decode, start=start)
        self._read: list[BoardEvent] = []
        """Of a step that failed half way: handed out with the next one."""

    def __repr__(self) -> str:
        return f"<BoardFollower {self._follower!r}>"

    async def read(self) -> list[BoardEvent]:
        """Everything new."""
        async for batch in self._follower.step():
            self._read += [followed.event for followed in batch if not followed.removed]
        found, self._read = self._read, []
        return found


def _decode(log: dict[str, Any]) -> BoardEvent | None:
    codec = _BOARD.EVENTS.get(bytes.fromhex(log["topics"][0][2:])) if log["topics"] else None
    return board_event(codec.decode(log)) if codec is not None else None


def board_event(event: Any) -> BoardEvent | None:
    """An event of the bindings as a domain type; None for one that is not about a prompt."""
    match event:
        case bindings.PromptPosted():
            return BoardEvent(name="posted", prompt=PromptId(event.id), terms=prompt_terms(event.terms))
        case bindings.PromptAssigned():
            return BoardEvent(name="assigned", prompt=PromptId(event.id), host=event.host, until=event.until)
        case bindings.PromptClaimed():
            return BoardEvent(name="claimed", prompt=PromptId(event.id), host=event.host, until=event.until)
        case bindings.PromptReleased():
            return BoardEvent(name="released", prompt=PromptId(event.id), host=event.host)
        case bindings.PromptCompleted():
            return BoardEvent(name="completed", prompt=PromptId(event.id), host=event.host)
        case bindings.PromptCancelled():
            return BoardEvent(name="cancelled", prompt=PromptId(event.id))
        case bindings.PromptRefunded():
            return BoardEvent(name="refunded", prompt=PromptId(event.id))
    return None


def completion_of(event: bindings.PromptCompleted) -> PromptCompletion:
    """As the domain has it."""
    return PromptCompletion(
        job=JobId(event.job_id),
        host=event.host,
        tokens=Tokens(event.tokens),
        price=PricePerMTok(event.price),
        result_cid=Cid(event.result_cid),
        result_hash=Hash32(event.result_hash),
        expires_at=event.expires_at,
    )


def abi_prompt(terms: PromptTerms) -> bindings.PromptTerms:
    """As the bindings take them."""
    return bindings.PromptTerms(
        renter=terms.renter,
        signer=terms.signer,
        token=terms.token,
        assigner=terms.assigner,
        arbiter=terms.arbiter,
        price_per_m_tok=terms.ceiling,
        bond=terms.bond,
        max_tokens=terms.max_tokens,
        deadline=terms.deadline,
        execute_seconds=terms.execute_seconds,
        challenge=terms.challenge,
        policy=terms.policy,
        model_id=terms.model_id,
        prompt_cid=terms.prompt_cid,
        salt=terms.salt,
    )


def prompt_terms(found: bindings.PromptTerms) -> PromptTerms:
    """As the domain has them."""
    return PromptTerms(
        renter=found.renter,
        signer=found.signer,
        token=found.token,
        assigner=found.assigner,
        arbiter=found.arbiter,
        ceiling=PricePerMTok(found.price_per_m_tok),
        bond=BaseUnits(found.bond),
        max_tokens=Tokens(found.max_tokens),
        deadline=found.deadline,
        execute_seconds=found.execute_seconds,
        challenge=found.challenge,
        policy=ProofPolicy(found.policy),
        model_id=ModelId(found.model_id),
        prompt_cid=Cid(found.prompt_cid),
        salt=Hash32(found.salt),
    )
