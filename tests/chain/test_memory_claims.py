"""Stakes, claims, disputes, top-ups and delegates: the same moves in memory and on the real contracts, with the same outcome."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.playing import CHECKPOINTS, DEPOSIT, PRICE, TREE, Play, World, memory_world
from tests.chain.support import HOST, OTHER, RENTER, SESSION_KEY, Chain, terms_for

from fabstir.domain.ids import ZERO_ADDRESS, Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ProofPolicy, Terms, salt_for
from fabstir.ports.chain import NO_KEY, ClaimArgs, RegisteredOffer
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.commitments import commitment_root
from fabstir.protocol.host_log import ServedTurn
from fabstir.protocol.opening import Opening
from fabstir.protocol.signing import job_id, keccak
from fabstir.protocol.transcript import extend, job_head, turn_head

RECORDS = tuple(keccak(b"record%d" % index) for index in range(TREE.tokens))
TURNS = (ServedTurn(Tokens(0), 0, keccak(b"first")), ServedTurn(Tokens(120), 1, keccak(b"second")))
SIGNED = Tokens(100)
BOND = BaseUnits(300)
MANY = BaseUnits(1_000_000)


class Claims(Play):
    """Jobs whose transcript is really what their vouchers and commitments say."""

    def __init__(self, world: World, now: int) -> None:
        super().__init__(world, now)
        self.now = now
        self.shown = []

    def agree(self, name: bytes, **changes: Any) -> Terms:
        """Terms of one more job, which the notes show from now on."""
        info = self.world.renter.info
        fields = {"token": info.usdc, "model_id": self.world.model, "price": PRICE, "bond": BOND, "salt": keccak(name)}
        agreed = terms_for(Chain("", info, self.world.model), self.now, **(fields | changes))
        self.shown.append(agreed)
        return agreed

    def head(self, terms: Terms, tokens: int = TREE.tokens) -> Hash32:
        """Before the turn that begins there."""
        head, turns = job_head(self.market, terms), list(TURNS)
        for position in range(tokens):
            while turns and turns[0].tokens == position:
                turn = turns.pop(0)
                head = turn_head(head, turn.message_index, turn.tokens, turn.request)
            head = extend(head, (RECORDS[position],))
        return head

    def voucher(self, terms: Terms, tokens: int) -> ClaimArgs:
        claim, head = self.claim(tokens, terms=terms), self.head(terms, tokens)
        digest = self.market.voucher_digest(job_id(terms), claim.amount, claim.tokens, head)
        return replace(claim, transcript=head, signature=SESSION_KEY.sign(digest))

    def opening(self, terms: Terms, signed: int = SIGNED) -> Opening:
        return Opening(
            tree_root=TREE.hash,
            head=self.head(terms),
            tokens=TREE.tokens,
            first=Tokens(signed),
            transcript=self.head(terms, signed),
            voucher=self.voucher(terms, signed).signature,
            records=RECORDS[signed:],
            turns=tuple(turn for turn in TURNS if turn.tokens >= signed),
        )

    async def serve(self, name: str, terms: Terms) -> None:
        """Opened, all proven, a part signed and redeemed; a claim is refused until the commitment is answered."""
        renter, host = self.world.renter, self.world.host
        await self.note(f"{name}: open", renter.open(self.key(), terms, DEPOSIT))
        root = commitment_root(TREE.hash, self.head(terms))
        await self.note(f"{name}: commit", host.commit_proof(self.key(), terms, TREE.tokens, root))
        await self.note(f"{name}: claim too early", host.claim_proven(self.key(), terms))
        await self.world.mine_to((await host.job(job_id(terms))).pending_block + 2)
        proof = await self.proof(terms=terms, head=self.head(terms))
        await self.note(f"{name}: prove", host.submit_proof(self.key(), terms, proof))
        await self.note(f"{name}: redeem", host.redeem(self.key(), (self.voucher(terms, SIGNED),)))

    async def claimed(self, name: str, terms: Terms) -> None:
        await self.serve(name, terms)
        await self.note(f"{name}: claim", self.world.host.claim_proven(self.key(), terms))


async def _play(world: World) -> list[str]:
    play = Claims(world, await world.renter.timestamp())
    offers = (RegisteredOffer(world.model, world.renter.info.usdc, PRICE),)
    await play.note("register", world.host.register_host(play.key(), "http://a", NO_KEY, offers))
    await play.note("approve", world.renter.approve(play.key(), world.renter.info.usdc, MANY))
    for moves in (_ruled, _contradicted, _undisputed, _unanswered, _without_arbiter, _agreed, _top_ups, _delegates):
        await moves(play)
    await _stake(play)
    return play.events


async def _ruled(play: Claims) -> None:
    renter, host, other = play.world.renter, play.world.host, play.world.other
    terms = play.agree(b"ruled", arbiter=OTHER.address)
    await play.note("dispute what is not open", renter.dispute(play.key(), terms))
    await play.serve("ruled", terms)
    await play.note("claim another's", other.claim_proven(play.key(), terms))
    await play.note("dispute no claim", renter.dispute(play.key(), terms))
    await play.note("claim", host.claim_proven(play.key(), terms))
    await play.note("claim again", host.claim_proven(play.key(), terms))
    await play.note("commit meanwhile", host.commit_proof(play.key(), terms, Tokens(400), NO_KEY))
    await play.note("settle early", other.settle_claim(play.key(), terms))
    await play.note("answer no dispute", host.answer_dispute(play.key(), terms, play.opening(terms)))
    await play.note("rule on nothing", other.rule(play.key(), terms, False))
    await play.note("dispute another's", other.dispute(play.key(), terms))
    await play.note("dispute", renter.dispute(play.key(), terms))
    await play.note("dispute again", renter.dispute(play.key(), terms))
    await _answers(play, terms)
    await play.note("rule as the renter", renter.rule(play.key(), terms, False))
    await play.note("voucher for a part", host.redeem(play.key(), (play.voucher(terms, 130),)))
    await play.note("rule for the host", other.rule(play.key(), terms, True))
    await play.note("rule twice", other.rule(play.key(), terms, False))
    await play.note("claim the next", host.claim_proven(play.key(), terms))
    await play.note("dispute the next", renter.dispute(play.key(), terms))
    await play.note("answer the next", host.answer_dispute(play.key(), terms, play.opening(terms, 130)))
    await play.note("rule for the renter", other.rule(play.key(), terms, False))
    await play.note("claim after a loss", host.claim_proven(play.key(), terms))
    await play.note("close", host.close_by_host(play.key(), play.voucher(terms, 200)))


async def _answers(play: Claims, terms: Terms) -> None:
    host, right = play.world.host, play.opening(terms)
    wrong = {
        "another commitment": replace(right, tokens=Tokens(299)),
        "another head": replace(right, head=NO_KEY),
        "another start": play.opening(terms, 50),
        "another transcript": replace(right, transcript=NO_KEY),
        "another's voucher": replace(right, voucher=OTHER.sign(NO_KEY)),
        "a record too few": replace(right, records=right.records[1:]),
        "a wrong record": replace(right, records=(NO_KEY, *right.records[1:])),
        "a turn too few": replace(right, turns=()),
        "a turn out of order": replace(right, turns=(*right.turns, *right.turns)[::-1]),
        "a turn before the start": replace(right, turns=TURNS),
    }
    for name, opening in wrong.items():
        await play.note(f"answer with {name}", host.answer_dispute(play.key(), terms, opening))
    await play.note("answer another's", play.world.other.answer_dispute(play.key(), terms, right))
    await play.note("answer", host.answer_dispute(play.key(), terms, right))
    await play.note("answer again", host.answer_dispute(play.key(), terms, right))


async def _contradicted(play: Claims) -> None:
    other, terms = play.world.other, play.agree(b"contradicted", policy=ProofPolicy.FALLBACK)
    await play.claimed("contradicted", terms)
    for name, tokens, key in (
        ("no less", 164, HOST),
        ("forged", 120, RENTER),
        ("right", 120, HOST),
        ("again", 110, HOST),
    ):
        claim = play.claim(tokens, terms=terms)
        signature = play.host_signature(claim, key)
        move = other.contradict(play.key(), terms, claim.amount, claim.tokens, signature)
        await play.note(f"contradict, {name}", move)


async def _undisputed(play: Claims) -> None:
    renter, other, terms = play.world.renter, play.world.other, play.agree(b"undisputed")
    await play.claimed("undisputed", terms)
    await play.world.advance(terms.challenge)
    await play.note("dispute late", renter.dispute(play.key(), terms))
    await play.note("settle", other.settle_claim(play.key(), terms))
    await play.note("settle again", other.settle_claim(play.key(), terms))


async def _unanswered(play: Claims) -> None:
    renter, host, other = play.world.renter, play.world.host, play.world.other
    terms = play.agree(b"unanswered")
    await play.claimed("unanswered", terms)
    await play.note("dispute", renter.dispute(play.key(), terms))
    await play.world.advance(terms.challenge)
    await play.note("answer late", host.answer_dispute(play.key(), terms, play.opening(terms)))
    await play.note("settle", other.settle_claim(play.key(), terms))


async def _without_arbiter(play: Claims) -> None:
    renter, host, terms = play.world.renter, play.world.host, play.agree(b"no arbiter")
    await play.claimed("no arbiter", terms)
    await play.note("close meanwhile", host.close_by_host(play.key(), play.claim(0, terms=terms, by=None)))
    await play.note("dispute", renter.dispute(play.key(), terms))
    await play.note("answer", host.answer_dispute(play.key(), terms, play.opening(terms)))


async def _agreed(play: Claims) -> None:
    renter, terms = play.world.renter, play.agree(b"agreed", arbiter=OTHER.address)
    await play.claimed("agreed", terms)
    await play.note("dispute", renter.dispute(play.key(), terms))
    for name, tokens in (("too little", 99), ("right", 120)):
        claim = play.claim(tokens, terms=terms)
        await play.note(f"agree, {name}", renter.close_cooperative(play.key(), claim, play.host_signature(claim)))


async def _top_ups(play: Claims) -> None:
    renter, host, other = play.world.renter, play.world.host, play.world.other
    terms, until = play.agree(b"topped up"), play.now + 10 * 86_400
    info = renter.info

    def signature(amount: BaseUnits, nonce: bytes, valid_before: int = until) -> bytes:
        place = (info.chain_id, info.usdc, RENTER.address, info.market)
        return RENTER.sign(authorization_digest(*place, amount, valid_before, Hash32(nonce)))

    job, more = job_id(terms), BaseUnits(70)
    opening, adding = signature(DEPOSIT, job), signature(more, top_up_nonce(job, DEPOSIT))
    late = signature(DEPOSIT, job, play.now)
    await play.note("open, wrong amount", host.open_with_authorization(play.key(), terms, more, until, opening))
    await play.note("open, late", host.open_with_authorization(play.key(), terms, DEPOSIT, play.now, late))
    await play.note("top up nothing", renter.top_up(play.key(), terms, more))
    await play.note("open", host.open_with_authorization(play.key(), terms, DEPOSIT, until, opening))
    await play.note("open again", host.open_with_authorization(play.key(), terms, DEPOSIT, until, opening))
    await play.note("top up by 0", renter.top_up(play.key(), terms, BaseUnits(0)))
    await play.note("top up unallowed", other.top_up(play.key(), terms, more))
    await play.note("top up, opening's", host.top_up_with_authorization(play.key(), terms, DEPOSIT, until, opening))
    await play.note("top up, signed", other.top_up_with_authorization(play.key(), terms, more, until, adding))
    await play.note("top up, again", other.top_up_with_authorization(play.key(), terms, more, until, adding))
    await play.note("top up", renter.top_up(play.key(), terms, more))


async def _delegates(play: Claims) -> None:
    renter, other, usdc = play.world.renter, play.world.other, play.world.renter.info.usdc
    delegation = renter.info.delegation
    terms = play.agree(b"delegated", salt=salt_for(delegation, bytes(8)))
    foreign, until = play.agree(b"not named"), play.now + 30 * 86_400
    for name, delegate, token in (
        ("nobody", ZERO_ADDRESS, usdc),
        ("oneself", RENTER.address, usdc),
        ("coins", OTHER.address, ZERO_ADDRESS),
    ):
        await play.note(f"delegate {name}", renter.set_delegate(play.key(), delegate, token, MANY, until))
    await play.note("no budget", other.open_as_delegate(play.key(), terms, DEPOSIT))
    await play.note("delegate", renter.set_delegate(play.key(), OTHER.address, usdc, BaseUnits(DEPOSIT + 1), until))
    await play.note("not allowed", other.open_as_delegate(play.key(), terms, DEPOSIT))
    await play.note("approve delegation", renter.approve_delegation(play.key(), usdc, MANY))
    await play.note("not named in the salt", other.open_as_delegate(play.key(), foreign, DEPOSIT))
    await play.note("open as the renter", renter.open(play.key(), terms, DEPOSIT))
    await play.note("open as delegate", other.open_as_delegate(play.key(), terms, DEPOSIT))
    second = play.agree(b"second", salt=salt_for(delegation, bytes(7) + b"\1"))
    await play.note("over budget", other.open_as_delegate(play.key(), second, DEPOSIT))
    await play.note("top up over budget", other.top_up_as_delegate(play.key(), terms, BaseUnits(2)))
    await play.note("top up what is not open", other.top_up_as_delegate(play.key(), second, BaseUnits(1)))
    await play.note("top up as delegate", other.top_up_as_delegate(play.key(), terms, BaseUnits(1)))
    await play.note("top up as a stranger", play.world.host.top_up_as_delegate(play.key(), terms, BaseUnits(1)))
    left = await renter.delegate_budget(RENTER.address, OTHER.address, usdc)
    play.events.append(f"budget {left.left}, {left.until - play.now} s")
    play.events.append(f"stranger {await renter.delegate_budget(RENTER.address, HOST.address, usdc)}")
    await play.note("delegate till now", renter.set_delegate(play.key(), OTHER.address, usdc, MANY, play.now))
    await play.note("expired", other.open_as_delegate(play.key(), second, DEPOSIT))


async def _stake(play: Claims) -> None:
    host, me = play.world.host, HOST.address
    staked = (await host.stake(me)).staked
    await play.note("unstake too much", host.request_unstake(play.key(), BaseUnits(staked + 1)))
    await play.note("withdraw unasked", host.withdraw_stake(play.key(), me))
    await play.note("unstake", host.request_unstake(play.key(), staked))
    await play.note("withdraw early", host.withdraw_stake(play.key(), me))
    wait = (await host.stake(me)).available_at - await host.timestamp()
    await play.world.advance(wait)
    await play.note("withdraw to nobody", host.withdraw_stake(play.key(), ZERO_ADDRESS))
    await play.note("withdraw", host.withdraw_stake(play.key(), me))
    await play.note("withdraw again", host.withdraw_stake(play.key(), me))
    await play.note("register without", host.register_host(play.key(), "http://a", NO_KEY, ()))
    terms = play.agree(b"bare", expires_at=play.now + 90 * 86_400)
    await play.claimed("bare", terms)
    await play.note("stake nothing", host.add_stake(play.key(), BaseUnits(0)))
    await play.note("stake unallowed", host.add_stake(play.key(), staked))
    await play.note("allow", host.approve_stake(play.key(), staked))
    await play.note("stake", host.add_stake(play.key(), staked))
    await play.note("claim with it", host.claim_proven(play.key(), terms))


ACCEPTED = (
    *("dispute", "answer", "rule for the host", "rule for the renter", "contradict, right", "settle", "agree, right"),
    *("open", "top up", "top up, signed", "open as delegate", "unstake", "withdraw", "stake", "claim with it"),
)
"""Moves without which the others would say nothing."""


@pytest.mark.real
async def test_claims_have_the_same_outcome_on_the_real_contracts(real_world: World) -> None:
    """Every move, allowed or refused: the same name of the refusal, the same jobs, stakes and money, step by step."""
    in_memory, on_chain = await _play(memory_world()), await _play(real_world)
    assert in_memory == on_chain
    assert sum("chain_reverted" in event for event in in_memory) > 45
    done = {event.partition(" | ")[0] for event in in_memory}
    assert {f"{name}: ok" for name in ACCEPTED} <= done


async def test_the_supply_never_changes() -> None:
    """Whatever is claimed, disputed, slashed and paid back: in memory as on a chain, USDC only moves."""
    world = memory_world()
    chain = world.renter._chain  # type: ignore[attr-defined]
    before = chain.supply()
    events = await _play(world)
    assert chain.supply() == before
    assert not [event for event in events if "KeyError" in event]


def test_what_these_moves_rest_on() -> None:
    """The second turn begins after what is signed, the first before; all is proven that is opened."""
    assert TURNS[0].tokens < SIGNED < TURNS[1].tokens < sum(point.tokens for point in CHECKPOINTS) == len(RECORDS)
