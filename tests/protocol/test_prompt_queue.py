"""The queue: what is claimed next and when, why not, and that it is the same as sorting everything each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir.domain.ids import Address
from fabstir.domain.money import BaseUnits
from fabstir.domain.prompts import PromptId, PromptTerms
from fabstir.protocol.prompt_queue import ClaimNow, PromptQueue, WaitUntil
from fabstir.protocol.prompt_rules import Reason, rank
from fabstir.protocol.prompt_signing import prompt_id
from tests.protocol.prompting import MODEL, START, TOKEN, host_address, queue_rules, terms

HOST, OTHER = host_address(0), host_address(1)


def queue(**changes: Any) -> PromptQueue:
    """One that does not wait before its first claims, unless it is told to."""
    return PromptQueue(queue_rules(HOST, **{"spread": 0.0, "slots": 100} | changes))


def post(queue: PromptQueue, *numbers: int, now: float = START, **changes: Any) -> list[PromptId]:
    found = []
    for number in numbers:
        wanted = terms(number, **changes)
        assert queue.posted(prompt_id(wanted), wanted, now) is None
        found.append(prompt_id(wanted))
    return found


def claims(queue: PromptQueue, now: float) -> list[PromptId]:
    """Everything that it claims now."""
    found = []
    while isinstance(action := queue.next(now), ClaimNow):
        found.append(action.prompt)
    return found


# -- order ---------------------------------------------------------------------------------------------------------------------


def test_the_order() -> None:
    """Reserved for this host, then what is due sooner, then the rest by age."""
    jobs = queue(scatter=0.0)
    (late,) = post(jobs, 1, now=START)
    (soon,) = post(jobs, 2, now=START + 5, deadline=START + 600)
    (later,) = post(jobs, 3, now=START + 5)
    reserved = terms(4)
    jobs.assigned(prompt_id(reserved), reserved, HOST, START + 90, START + 8)
    assert claims(jobs, START + 10) == [prompt_id(reserved), soon, late, later]


def test_reporting_it_again_changes_nothing() -> None:
    """A rescan of the chain finds the same jobs."""
    jobs = queue()
    (one,) = post(jobs, 1)
    assert jobs.posted(one, terms(1), START + 9) is None
    assert (len(jobs), claims(jobs, START + 9), len(jobs)) == (1, [one], 0)
    jobs.posted(one, terms(1), START + 9)
    jobs.won(one, terms(1))
    jobs.posted(one, terms(1), START + 9)
    assert (len(jobs), claims(jobs, START + 9)) == (0, [])


def test_slots_bound_the_claims() -> None:
    """A claim on its way takes a slot, as work does; completed work does not."""
    jobs = queue(slots=2)
    post(jobs, 1, 2, 3)
    first = claims(jobs, START)
    assert (len(first), jobs.occupied) == (2, 2)
    assert jobs.next(START) == WaitUntil(None, "no slot is free")
    jobs.won(first[0], terms(1))
    assert jobs.occupied == 2 and claims(jobs, START) == []
    jobs.done(first[0], BaseUnits(50))
    assert len(claims(jobs, START)) == 1


def test_unpaid_work_is_bounded() -> None:
    """The best job waits at the head until earlier work is paid; a small one does not slip past it for ever."""
    jobs = queue(max_unpaid=BaseUnits(150), scatter=0.0)
    first, second = post(jobs, 1, 2)
    post(jobs, 3, now=START + 1, max_tokens=10)
    assert claims(jobs, START + 1) == [first]
    assert jobs.next(START + 1) == WaitUntil(None, "too much work is unpaid")
    jobs.won(first, terms(1))
    jobs.done(first, BaseUnits(40))
    assert (jobs.unpaid, claims(jobs, START + 1)[:1]) == (40 + 0, [second])
    jobs.paid(first)
    assert jobs.unpaid == 110


def test_a_job_that_cannot_be_finished_any_more_is_forgotten() -> None:
    """With the reason, and without being looked for."""
    jobs = queue(slots=0)
    (one,) = post(jobs, 1)
    jobs.next(START + 3_567.5)
    assert one in jobs
    jobs.next(START + 3_568)
    assert one not in jobs and jobs.why(one) is Reason.DEADLINE
    assert jobs.counts == {Reason.DEADLINE: 1}


def test_rules_that_changed_count_for_those_in_the_queue() -> None:
    """The measured speed fell, a renter was blocked: judged again at the moment of the claim."""
    jobs = queue()
    (one,) = post(jobs, 1)
    slow = msgspec.structs.replace(jobs.rules.offers[MODEL, TOKEN], tokens_per_second=1.0)
    jobs.rules = msgspec.structs.replace(jobs.rules, offers={(MODEL, TOKEN): slow})
    assert claims(jobs, START) == [] and jobs.why(one) is Reason.WINDOW


def test_the_worst_is_dropped_when_it_is_full() -> None:
    """Whichever it is, the new one included; reserved ones last; with a reason and a count."""
    jobs = queue(max_queued=2, scatter=0.0)
    (first,) = post(jobs, 1, deadline=START + 1_000)
    (second,) = post(jobs, 2, deadline=START + 1_001)
    bad = terms(3)
    assert jobs.posted(prompt_id(bad), bad, START) is Reason.FULL
    better = terms(4, deadline=START + 600)
    assert jobs.posted(prompt_id(better), better, START) is None
    assert (jobs.why(second), jobs.why(first), jobs.counts[Reason.FULL]) == (Reason.FULL, None, 2)
    reserved = terms(5)
    assert jobs.assigned(prompt_id(reserved), reserved, HOST, START + 90, START) is None
    assert len(jobs) == 2 and first not in jobs


def test_a_reservation_saves_a_queued_job() -> None:
    """The worst of a full queue, reserved for this host, is not the worst any more; one that lost its reservation is again."""
    jobs = queue(max_queued=2, scatter=0.0)
    (good,) = post(jobs, 1, deadline=START + 900)
    (bad,) = post(jobs, 2, deadline=START + 1_800)
    worse = terms(3)
    assert jobs.posted(prompt_id(worse), worse, START) is Reason.FULL
    jobs.assigned(bad, terms(2, deadline=START + 1_800), HOST, START + 60, START)
    post(jobs, 4, deadline=START + 600)
    assert bad in jobs and good not in jobs
    jobs.assigned(bad, terms(2, deadline=START + 1_800), OTHER, START + 60, START)
    post(jobs, 5, deadline=START + 600)
    assert bad not in jobs


def test_a_lost_reservation_gives_no_head_start() -> None:
    """Another has it: when its claim lapses, the job comes in its own place."""
    jobs = queue(scatter=0.0, backoff_cap=0.0)
    reserved = terms(1)
    jobs.assigned(prompt_id(reserved), reserved, HOST, START + 60, START)
    assert claims(jobs, START) == [prompt_id(reserved)]
    jobs.lost(prompt_id(reserved), START + 60, START)
    (sooner,) = post(jobs, 2, deadline=START + 900)
    assert claims(jobs, START + 60) == [sooner, prompt_id(reserved)]


def test_a_reason_is_forgotten_once_it_does_not_hold() -> None:
    """Refused for its price, then the price fell: queued, claimed, and nothing speaks against it."""
    jobs = queue()
    right = jobs.rules
    jobs.rules = msgspec.structs.replace(right, min_value=BaseUnits(101))
    assert jobs.posted(prompt_id(terms()), terms(), START) is Reason.WORTHLESS
    jobs.rules = right
    (one,) = post(jobs, 0)
    assert (claims(jobs, START), jobs.why(one)) == ([one], None)


# -- what the chain shows ------------------------------------------------------------------------------------------------------


def test_what_another_holds_is_left_alone_until_it_lapses() -> None:
    """Claimed or reserved; then it is claimed without being posted again."""
    jobs = queue()
    one, two = post(jobs, 1, 2)
    jobs.claimed(one, terms(1), OTHER, START + 60, START)
    jobs.assigned(two, terms(2), OTHER, START + 70, START)
    assert claims(jobs, START + 59) == []
    assert jobs.next(START + 59) == WaitUntil(START + 60, "nothing may be claimed now")
    assert claims(jobs, START + 60) == [one]
    assert claims(jobs, START + 70) == [two]


def test_a_job_that_is_first_seen_as_claimed() -> None:
    """After a restart: it may still lapse. This host's own claim is not queued."""
    jobs = queue()
    jobs.claimed(prompt_id(terms(1)), terms(1), OTHER, START + 60, START)
    jobs.claimed(prompt_id(terms(2)), terms(2), HOST, START + 60, START)
    assert (len(jobs), claims(jobs, START + 60)) == (1, [prompt_id(terms(1))])


def test_what_is_given_back_keeps_its_age() -> None:
    """And may be claimed at once."""
    jobs = queue(scatter=0.0)
    (old,) = post(jobs, 1)
    jobs.claimed(old, terms(1), OTHER, START + 60, START)
    (new,) = post(jobs, 2, now=START + 20)
    jobs.released(old, terms(1), START + 30)
    assert claims(jobs, START + 30) == [old, new]
    fresh = terms(3)
    jobs.released(prompt_id(fresh), fresh, START + 30)
    assert claims(jobs, START + 30) == [prompt_id(fresh)]


def test_what_ended_is_gone() -> None:
    """Queued, or with a claim on its way: the slot and the exposure are free again."""
    jobs = queue(slots=1)
    one, two = post(jobs, 1, 2)
    (claimed,) = claims(jobs, START)
    jobs.ended(one)
    jobs.ended(two)
    assert (len(jobs), jobs.occupied, jobs.unpaid) == (0, 0, 0)
    assert jobs.why({one: two, two: one}[claimed]) is Reason.ENDED


# -- races ---------------------------------------------------------------------------------------------------------------------


def test_a_lost_race_costs_a_pause() -> None:
    """For everything, doubled with each loss in a row, at most the cap; a claim that is won ends it."""
    jobs = queue(backoff_base=2.0, backoff_cap=16.0)
    now, windows = float(START), []
    for number in range(1, 40):
        (one,) = post(jobs, number, now=now, deadline=START + 10**6)
        assert claims(jobs, now) == [one]
        jobs.lost(one, now + 10**5, now)
        action = jobs.next(now)
        assert isinstance(action, WaitUntil) and action.at is not None
        windows.append((action.at - now) / min(16.0, 2.0**number))
        now = action.at
    assert all(0 <= window <= 1 for window in windows)
    assert max(windows) > 0.8 and min(windows) < 0.2, "anywhere in the window"
    (one,) = post(jobs, 99, now=now, deadline=START + 10**6)
    assert claims(jobs, now) == [one] and jobs.races_lost == 39
    jobs.won(one, terms(99))
    assert jobs.races_lost == 0


def test_a_job_that_was_lost_is_tried_again_after_the_others_claim() -> None:
    """Not before it lapses; and this host does not count it as its own exposure meanwhile."""
    jobs = queue()
    (one,) = post(jobs, 1)
    assert claims(jobs, START) == [one] and jobs.unpaid == 100
    jobs.lost(one, START + 60, START)
    assert (jobs.unpaid, jobs.occupied, one in jobs) == (0, 0, True)
    assert claims(jobs, START + 59) == []
    assert claims(jobs, START + 62) == [one]


def test_a_job_that_failed_here_is_not_tried_again() -> None:
    """Whatever the chain shows of it."""
    jobs = queue()
    (one,) = post(jobs, 1)
    claims(jobs, START)
    jobs.won(one, terms(1))
    jobs.failed(one)
    assert jobs.posted(one, terms(1), START) is Reason.FAILED
    jobs.released(one, terms(1), START)
    assert (claims(jobs, START + 9), jobs.why(one), jobs.occupied, jobs.unpaid) == ([], Reason.FAILED, 0, 0)


def test_a_claim_that_is_not_wanted_any_more_frees_its_slot() -> None:
    """Failed or over before the claim was decided."""
    jobs = queue()
    one, two = post(jobs, 1, 2)
    claims(jobs, START)
    jobs.failed(one)
    jobs.over(two)
    assert (jobs.occupied, jobs.unpaid, len(jobs)) == (0, 0, 0)


def test_a_claim_that_lapsed_may_be_tried_again() -> None:
    """A crash took too long; there may still be time."""
    jobs = queue()
    (one,) = post(jobs, 1)
    claims(jobs, START)
    jobs.won(one, terms(1))
    jobs.lapsed(one, terms(1), START + 60)
    assert (jobs.occupied, claims(jobs, START + 60)) == (0, [one])


def race(hosts: int, jobs: int, **changes: Any) -> tuple[int, Counter[str]]:
    """Equal hosts that see each event one block late, on a chain with 2 s blocks. Returns seconds, and claims by outcome."""
    queues = {host_address(n): PromptQueue(queue_rules(host_address(n), slots=1_000, **changes)) for n in range(hosts)}
    wanted = {prompt_id(terms(n)): terms(n, deadline=START + 10**5) for n in range(jobs)}
    wanted = {prompt_id(found): found for found in wanted.values()}
    for one in queues.values():
        for prompt, found in wanted.items():
            one.posted(prompt, found, START)
    holders: dict[PromptId, Address] = {}
    outcomes: Counter[str] = Counter()
    now = float(START)
    while len(holders) < jobs:
        now += 2
        sent = [(host, action) for host, one in queues.items() if isinstance(action := one.next(now), ClaimNow)]
        news = []
        for host, action in sent:
            if action.prompt in holders:
                outcomes["lost"] += 1
                queues[host].lost(action.prompt, START + 10**5, now)
            else:
                outcomes["won"] += 1
                holders[action.prompt] = host
                news.append((action.prompt, host))
                queues[host].won(action.prompt, action.terms)
        for prompt, host in news:
            for one in queues.values():
                one.claimed(prompt, wanted[prompt], host, START + 10**5, now)
    return int(now - START), outcomes


def test_many_hosts_do_not_hammer() -> None:
    """Sixteen hosts and 200 jobs: far fewer lost claims than jobs, and it is over soon. Without scatter and back-off, nearly
    every claim but one in each block is lost."""
    seconds, outcomes = race(16, 200)
    assert outcomes["won"] == 200
    assert outcomes["lost"] < 100
    _, naive = race(16, 200, scatter=0.0, spread=0.0, backoff_base=0.0)
    assert naive["lost"] > 2_000
    assert seconds < 300


def test_one_job_and_many_hosts() -> None:
    """All of them see it in the same block: the contention window leaves most of them without a lost claim."""
    assert race(16, 1, spread=30.0)[1]["lost"] <= 4


# -- all of it -----------------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["post", "post", "post", "assign", "claimed", "released", "ended", "next", "lost", "won", "wait"]
        ),
        st.integers(0, 9),
    ),
    max_size=120,
)


@settings(max_examples=200)
@given(steps=steps)
def test_it_is_the_same_as_sorting_everything_each_time(steps: list[tuple[str, int]]) -> None:  # noqa: PLR0912
    """Against a list that is sorted anew at each step: the same claims, in the same order, and slots and exposure add up."""
    jobs = queue(slots=3, max_queued=8, backoff_base=0.0, backoff_cap=0.0)
    model: dict[PromptId, tuple[float, float]] = {}
    """prompt -> (place, not before)"""
    by_number: dict[int, PromptTerms] = {n: terms(n) for n in range(10)}
    now, claiming = float(START), list[PromptId]()
    working = set[PromptId]()
    offer = jobs.rules.offers[MODEL, TOKEN]
    for verb, number in steps:
        wanted = by_number[number]
        prompt = prompt_id(wanted)
        place = rank(jobs.rules, offer, prompt, wanted, now)
        old = model.get(prompt)
        busy = prompt in claiming or prompt in working
        match verb:
            case "post":
                jobs.posted(prompt, wanted, now)
                if old is None and not busy:
                    model[prompt] = (place, now)
            case "assign":
                jobs.assigned(prompt, wanted, OTHER, now + 5, now)
                if not busy:
                    model[prompt] = (old[0] if old else place, now + 5)
            case "claimed":
                jobs.claimed(prompt, wanted, OTHER, now + 7, now)
                if not busy:
                    model[prompt] = (old[0] if old else place, now + 7)
            case "released":
                jobs.released(prompt, wanted, now)
                if not busy:
                    model[prompt] = (old[0] if old else place, now)
            case "ended":
                jobs.ended(prompt)
                model.pop(prompt, None)
                if prompt in claiming:
                    claiming.remove(prompt)
            case "next":
                ready = [p for p, (_, at) in model.items() if at <= now]
                action = jobs.next(now)
                if ready and len(claiming) + len(working) < 3:
                    best = min(ready, key=lambda p: model[p][0])
                    assert isinstance(action, ClaimNow) and action.prompt == best
                    del model[best]
                    claiming.append(best)
                else:
                    assert isinstance(action, WaitUntil)
            case "lost" if claiming:
                lost = claiming.pop(0)
                jobs.lost(lost, now + 3, now)
                first = next(found for found in by_number.values() if prompt_id(found) == lost)
                model[lost] = (
                    jobs._entries[lost].rank if lost in jobs else rank(jobs.rules, offer, lost, first, now),
                    now + 3,
                )
            case "won" if claiming:
                won = claiming.pop(0)
                jobs.won(won, next(found for found in by_number.values() if prompt_id(found) == won))
                working.add(won)
            case _:
                now += number
        while len(model) > 8:
            del model[max(model, key=lambda p: model[p][0])]
        assert set(model) == set(jobs._entries)
        assert jobs.occupied == len(claiming) + len(working)
        assert jobs.unpaid == 100 * jobs.occupied
        assert len(jobs._ready) + len(jobs._later) == len(jobs) == len(jobs._latest)
        assert jobs._worst is None or len(jobs._worst) == len(jobs)


def test_ten_thousand_are_held_and_no_more() -> None:
    """The default bound; the memory of reasons is bounded, too."""
    jobs = PromptQueue(queue_rules(HOST))
    for number in range(10_050):
        wanted = terms(number)
        jobs.posted(prompt_id(wanted), wanted, START + number / 1_000)
    assert len(jobs) == 10_000 and jobs.counts[Reason.FULL] == 50
    assert repr(jobs).startswith("<PromptQueue 10000 queued")


def test_reasons_are_forgotten_one_day() -> None:
    """The last ten thousand are known."""
    jobs = queue(offers={})
    for number in range(10_001):
        assert jobs.posted(PromptId(number.to_bytes(32, "big")), terms(), START) is Reason.MODEL
    assert jobs.why(PromptId(bytes(32))) is None
    assert jobs.why(PromptId((1).to_bytes(32, "big"))) is Reason.MODEL
