"""The prompt board twice, in memory and on anvil: the same moves, the same refusals, the same money."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

import msgspec
import pytest
from tests.chain.playing import PRICE, World, memory_world
from tests.chain.support import HOST, OTHER, RENTER, SESSION_KEY

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import ZERO_ADDRESS, Hash32
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.chain import NO_KEY, RegisteredOffer
from fabstir.ports.prompts import BoardFeed, PromptChain
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.prompt_signing import escrow_of, market_terms, prompt_id
from fabstir.protocol.signing import SigningKey, job_id, keccak

TOKENS = Tokens(40)
RESULT = (Cid(keccak(b"cid")), Hash32(keccak(b"hash")))


class PromptPlay:
    """Moves on one board, written down."""

    def __init__(self, world: World, now: int) -> None:
        accounts = (world.renter, world.host, world.other)
        self.renter, self.host, self.other = (cast(PromptChain, account) for account in accounts)
        self.world = world
        self.now = now
        self.terms = PromptTerms(
            renter=RENTER.address,
            signer=SESSION_KEY.address,
            token=self.renter.info.usdc,
            assigner=ZERO_ADDRESS,
            arbiter=ZERO_ADDRESS,
            ceiling=PricePerMTok(PRICE + 500_000),
            bond=BaseUnits(1_000),
            max_tokens=Tokens(100),
            deadline=now + 3_600,
            execute_seconds=600,
            challenge=900,
            policy=ProofPolicy.REQUIRED,
            model_id=world.model,
            prompt_cid=Cid(keccak(b"prompt")),
            salt=keccak(b"prompt one"),
        )
        self.events: list[str] = []
        self.feed: BoardFeed
        self._keys = 0

    def another(self, name: str, **changes: object) -> PromptTerms:
        """Other terms under another salt."""
        return msgspec.structs.replace(self.terms, salt=keccak(name.encode()), **changes)

    def key(self) -> str:
        self._keys += 1
        return f"prompt move {self._keys}"

    async def note(self, name: str, move: Awaitable[object], terms: PromptTerms | None = None) -> None:
        """The outcome, what the board says, and everybody's money."""
        try:
            await move
            outcome = "ok"
        except ChainFault as fault:
            outcome = f"{fault.code} {fault.detail.partition('(')[0]}"
        chain, usdc = self.renter, self.renter.info.usdc
        owners = (RENTER.address, HOST.address, chain.info.board, chain.info.market)
        money = [await chain.balance(usdc, owner) for owner in owners]
        found = await chain.prompt(prompt_id(terms or self.terms))
        told = (found.state.name, found.host.hex()[:6], found.until != 0, found.price, found.escrow)
        news = [(event.name, event.host.hex()[:6], event.until != 0) for event in await self.feed.read()]
        self.events.append(f"{name}: {outcome} | {told} | {money} | {news}")

    def authorization(self, terms: PromptTerms, key: SigningKey, until: int) -> bytes:
        info = self.renter.info
        parties = (info.chain_id, terms.token, terms.renter, info.board)
        return key.sign(authorization_digest(*parties, escrow_of(terms), until, Hash32(prompt_id(terms))))


async def _play(world: World) -> list[str]:
    play = PromptPlay(world, await world.renter.timestamp())
    offers = (RegisteredOffer(world.model, world.host.info.usdc, PRICE),)
    for account in (world.host, world.other):
        await account.register_host(play.key(), "http://host", NO_KEY, offers)
    play.feed = await play.renter.follow_board(play.now)
    await _posting(play)
    await _to_the_answer(play)
    await _back_to_the_renter(play)
    return play.events


async def _posting(play: PromptPlay) -> None:
    renter, other, terms = play.renter, play.other, play.terms
    await play.note("post without approval", renter.post_prompt(play.key(), terms))
    await play.note("approve", renter.approve_board(play.key(), terms.token, BaseUnits(3 * escrow_of(terms))))
    await play.note("post another's", other.post_prompt(play.key(), terms))
    await play.note("post too long", renter.post_prompt(play.key(), play.another("x", max_tokens=Tokens(5_000))))
    await play.note("post", renter.post_prompt(play.key(), terms))
    await play.note("post again", renter.post_prompt(play.key(), terms))
    signed, until = play.another("signed"), play.now + 3_600
    forged = play.authorization(signed, OTHER, until)
    await play.note("post forged", other.post_prompt_with_authorization(play.key(), signed, until, forged), signed)
    real = play.authorization(signed, RENTER, until)
    await play.note("post signed", other.post_prompt_with_authorization(play.key(), signed, until, real), signed)


async def _to_the_answer(play: PromptPlay) -> None:
    renter, host, other, terms = play.renter, play.host, play.other, play.terms
    await play.note("assign by a stranger", other.assign_prompts(play.key(), ((terms, OTHER.address),)))
    await play.note("assign to nobody's", renter.assign_prompts(play.key(), ((terms, RENTER.address),)))
    await play.note("assign", renter.assign_prompts(play.key(), ((terms, OTHER.address),)))
    await play.note("claim reserved", host.claim_prompt(play.key(), terms, HOST.address))
    await play.note("assign again", renter.assign_prompts(play.key(), ((terms, HOST.address),)))
    await play.note("claim for another", other.claim_prompt(play.key(), terms, HOST.address))
    await play.note("delegate", host.set_claim_delegate(play.key(), OTHER.address, play.now + 7_200))
    await play.note("claim as delegate", other.claim_prompt(play.key(), terms, HOST.address))
    await play.note("claim taken", other.claim_prompt(play.key(), terms, OTHER.address))
    await play.note("cancel at work", renter.cancel_prompt(play.key(), terms))
    await play.note("release", host.release_prompt(play.key(), terms))
    await play.note("claim", other.claim_prompt(play.key(), terms, OTHER.address))
    await play.world.advance(700)
    await play.note("complete late", other.complete_prompt(play.key(), terms, TOKENS, *RESULT))
    await play.note("claim lapsed", host.claim_prompt(play.key(), terms, HOST.address))
    await play.note("complete another's", other.complete_prompt(play.key(), terms, TOKENS, *RESULT))
    await play.note("complete too much", host.complete_prompt(play.key(), terms, Tokens(101), *RESULT))
    await play.note("complete", host.complete_prompt(play.key(), terms, TOKENS, *RESULT))
    await play.note("complete again", host.complete_prompt(play.key(), terms, TOKENS, *RESULT))
    done = await renter.completion(prompt_id(terms), play.now)
    assert done is not None and (done.tokens, done.result_cid, done.result_hash) == (TOKENS, *RESULT)
    assert await renter.completion(PromptId(bytes(32)), play.now) is None
    job = market_terms(renter.info.board, terms, done)
    assert job_id(job) == done.job
    play.events.append(f"job: {(await renter.job(done.job)).deposit}, {job.exposure}")


async def _back_to_the_renter(play: PromptPlay) -> None:
    renter, other, signed = play.renter, play.other, play.another("signed")
    await play.note("cancel another's", other.cancel_prompt(play.key(), signed), signed)
    await play.note("cancel", renter.cancel_prompt(play.key(), signed), signed)
    await play.note("cancel again", renter.cancel_prompt(play.key(), signed), signed)
    late = [play.another("late"), play.another("later")]
    for terms in late:
        await play.note("post", renter.post_prompt(play.key(), terms), terms)
    pairs = tuple((terms, HOST.address) for terms in late)
    await play.note(
        "assign one that ended", renter.assign_prompts(play.key(), (*pairs, (signed, HOST.address))), late[0]
    )
    await play.note("assign both", renter.assign_prompts(play.key(), pairs), late[0])
    await play.note("refund early", other.refund_prompt(play.key(), late[0]), late[0])
    await play.world.advance(3_600)
    for terms in late:
        await play.note("refund", other.refund_prompt(play.key(), terms), terms)


async def test_moves_in_memory() -> None:
    """From the escrow to the answer or back to the renter: every move that the contract allows goes through, the others are refused
    under its names, and what was not paid for an answer comes back to the last unit."""
    told = await _play(memory_world())
    outcomes = [line.partition(" | ")[0] for line in told]
    assert [line for line in outcomes if line.startswith(("complete", "refund", "cancel"))] == [
        "cancel at work: chain_reverted AlreadyClaimed",
        "complete late: chain_reverted NotClaimed",
        "complete another's: chain_reverted NotHost",
        "complete too much: chain_reverted TokensOutOfRange",
        "complete: ok",
        "complete again: chain_reverted NotPosted",
        "cancel another's: chain_reverted NotRenter",
        "cancel: ok",
        "cancel again: chain_reverted NotPosted",
        "refund early: chain_reverted TooEarly",
        "refund: ok",
        "refund: ok",
    ]
    paid = 40 * PRICE // 1_000_000
    assert f"[{1_000_000_000 - paid}, 0, 0, {paid}]" in told[-1]


@pytest.mark.real
async def test_moves_on_the_real_board(real_world: World) -> None:
    """What happens in memory happens on the contracts: each outcome, each state, each balance, each event."""
    assert await _play(real_world) == await _play(memory_world())
