"""The market in memory: the same moves as on the real contracts, from the deposit to the last withdrawal."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace
from tests.chain.playing import (
    DEPOSIT,
    HEAD,
    MODEL,
    PRICE,
    ROOT,
    TREE,
    UNKNOWN,
    Play,
    World,
    memory_world,
)
from tests.chain.support import HOST, OPERATOR, OTHER, RENTER, Chain, terms_for

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.ports.chain import NO_KEY, RegisteredOffer
from fabstir.protocol.signing import job_id


async def _play(world: World) -> list[str]:
    play = Play(world, await world.renter.timestamp())
    await _moves_before_proof(play)
    await _moves_with_proof(play)
    await _moves_to_the_end(play)
    await _moves_in_the_registry(play)
    return play.events


async def _moves_before_proof(play: Play) -> None:
    renter, host, other, terms = play.world.renter, play.world.host, play.world.other, play.terms
    usdc = renter.info.usdc
    await play.note("open without approval", renter.open(play.key(), terms, DEPOSIT))
    await play.note("approve", renter.approve(play.key(), usdc, BaseUnits(3 * DEPOSIT)))
    await play.note("open another's", other.open(play.key(), terms, DEPOSIT))
    await play.note("open for nothing", renter.open(play.key(), terms, BaseUnits(0)))
    await play.note("open", renter.open(play.key(), terms, DEPOSIT))
    await play.note("open again", renter.open(play.key(), terms, DEPOSIT))
    await play.note("open second", renter.open(play.key(), play.second, DEPOSIT))
    await play.note("redeem without proof", host.redeem(play.key(), (play.claim(10),)))
    await play.note("redeem second", host.redeem(play.key(), (play.claim(10, terms=play.second),)))
    await play.note("redeem second again", host.redeem(play.key(), (play.claim(10, terms=play.second),)))
    await play.note("redeem another's", other.redeem(play.key(), (play.claim(11, terms=play.second),)))
    await play.note("redeem forged", host.redeem(play.key(), (play.claim(11, terms=play.second, by=OTHER),)))
    await play.note("redeem too much", host.redeem(play.key(), (play.claim(DEPOSIT + 1, terms=play.second),)))
    await play.note("redeem wrong amount", host.redeem(play.key(), (play.claim(11, terms=play.second, extra=1),)))
    both = (play.claim(20, terms=play.second), play.claim(20))
    await play.note("redeem one good, one bad", host.redeem(play.key(), both))


async def _moves_with_proof(play: Play) -> None:
    host, other, terms = play.world.host, play.world.other, play.terms
    await play.note("submit without commitment", host.submit_proof(play.key(), terms, await play.proof()))
    await play.note("commit another's", other.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("commit", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("commit again", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("submit early", host.submit_proof(play.key(), terms, await play.proof()))
    await play.world.mine_to((await host.job(job_id(terms))).pending_block + 2)
    await play.note("submit another circuit", host.submit_proof(play.key(), terms, await play.proof(HEAD)))
    answer = await play.proof()
    wrong = msgspec.structs.replace(answer, commitment=HEAD)
    await play.note("submit a checkpoint that is not in the tree", host.submit_proof(play.key(), terms, wrong))
    await play.note("submit the other checkpoint", host.submit_proof(play.key(), terms, await play.proof(other=True)))
    await play.note("submit, relayed", other.submit_proof(play.key(), terms, await play.proof()))
    await play.note("commit no more than that", host.commit_proof(play.key(), terms, TREE.tokens, ROOT))
    await play.note("claim tail", host.claim_proven(play.key(), terms))
    await play.note("claim tail again", host.claim_proven(play.key(), terms))
    await play.note("redeem less than claimed", host.redeem(play.key(), (play.claim(30),)))
    await play.note("claim while one is held", host.claim_proven(play.key(), terms))
    await play.note("redeem", host.redeem(play.key(), (play.claim(200),)))
    await play.note("redeem beyond proof", host.redeem(play.key(), (play.claim(301),)))


async def _moves_to_the_end(play: Play) -> None:
    renter, host, other, terms = play.world.renter, play.world.host, play.world.other, play.terms
    await play.note("ask to close another's", other.request_close(play.key(), terms))
    await play.note("ask to close", renter.request_close(play.key(), terms))
    await play.note("ask to close again", renter.request_close(play.key(), terms))
    await play.note("finalize early", other.finalize(play.key(), terms))
    await play.note("close another's", other.close_by_host(play.key(), play.claim(250)))
    await play.note("close", host.close_by_host(play.key(), play.claim(250)))
    await play.note("close again", host.close_by_host(play.key(), play.claim(250)))
    agreed = play.claim(50, terms=play.second)
    forged = play.host_signature(agreed, OTHER)
    await play.note("close together, forged", renter.close_cooperative(play.key(), agreed, forged))
    unsigned = play.claim(50, terms=play.second, by=OTHER)
    signature = play.host_signature(agreed)
    await play.note("close together, by a stranger", other.close_cooperative(play.key(), unsigned, signature))
    await play.note("close together", other.close_cooperative(play.key(), agreed, signature))
    await play.note("withdraw to nobody", host.withdraw(play.key(), host.info.usdc, ZERO_ADDRESS))
    await play.note("withdraw", host.withdraw(play.key(), host.info.usdc, HOST.address))
    await play.note("withdraw again", host.withdraw(play.key(), host.info.usdc, HOST.address))
    await play.note("withdraw fees", play.world.treasury.withdraw(play.key(), host.info.usdc, OPERATOR.address))


async def _moves_in_the_registry(play: Play) -> None:
    host, other, treasury = play.world.host, play.world.other, play.world.treasury
    usdc = host.info.usdc
    offer = RegisteredOffer(play.world.model, usdc, PRICE)
    free, unknown = replace(offer, price=PricePerMTok(0)), replace(offer, model_id=UNKNOWN)
    in_coins = replace(offer, token=ZERO_ADDRESS)
    for name, url, offers in (
        ("unknown model", "http://a", (unknown,)),
        ("nothing", "http://a", ()),
        ("nowhere", "", (offer,)),
        ("too long a URL", "http://" + "a" * 250, (offer,)),
        ("twice the same", "http://a", (offer, offer)),
        ("free", "http://a", (free,)),
        ("free, twice the same", "http://a", (offer, free)),
        ("twice the same, one unknown", "http://a", (unknown, offer, offer)),
        ("in two currencies", "http://a", (offer, in_coins)),
        ("for one model", "http://a", (offer,)),
    ):
        await play.note(f"register {name}", host.register_host(play.key(), url, HEAD, offers))
        play.events.append(str([entry.offers == offers for entry in await host.hosts(play.world.model)]))
    await play.note("register without stake", treasury.register_host(play.key(), "http://b", NO_KEY, (offer,)))
    await play.note("leave unregistered", other.unregister_host(play.key()))
    await play.note("leave", host.unregister_host(play.key()))


@pytest.mark.real
async def test_the_same_moves_have_the_same_outcome_on_the_real_contracts(real_world: World) -> None:
    """Every move, allowed or refused: the same name of the refusal, the same job, the same money, step by step."""
    in_memory, on_chain = await _play(memory_world()), await _play(real_world)
    assert in_memory == on_chain
    assert sum(": ok" in event for event in in_memory) > 15
    assert sum("chain_reverted" in event for event in in_memory) > 25


async def test_a_renter_waits_out_the_window_in_the_clocks_time() -> None:
    """finalize follows the chain's time, and refunds to the last unit."""
    world = memory_world()
    play = Play(world, await world.renter.timestamp())
    before = await world.renter.balance(world.renter.info.usdc, RENTER.address)
    await world.renter.approve("approve", play.terms.token, DEPOSIT)
    await world.renter.open("open", play.terms, DEPOSIT)
    await world.renter.request_close("ask", play.terms)
    with pytest.raises(ChainFault, match="TooEarly"):
        await world.other.finalize("early", play.terms)
    await world.advance(play.terms.challenge)
    await world.other.finalize("finalize", play.terms)
    assert await world.renter.balance(world.renter.info.usdc, RENTER.address) == before


async def test_coins_are_paid_without_approval() -> None:
    """And who has none is told so, as the outbox tells it."""
    world = memory_world()
    now = await world.renter.timestamp()
    terms = terms_for(Chain("", world.renter.info, MODEL), now, token=ZERO_ADDRESS)
    await world.renter.open("open", terms, DEPOSIT)
    assert (await world.host.job(job_id(terms))).deposit == DEPOSIT
    poor = terms_for(Chain("", world.renter.info, MODEL), now, token=ZERO_ADDRESS, renter=OTHER.address)
    with pytest.raises(ChainFault, match="funds_insufficient"):
        await world.other.open("open", poor, DEPOSIT)
