"""One prompt from the keyboard to the money, with the real seals, hashes and signatures, and the models of both contracts."""

from __future__ import annotations

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens, fee_of
from fabstir.domain.prompts import Cid, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.prompt_content import (
    PromptBody,
    PromptResult,
    answer_head,
    check_result,
    decode_body,
    digests_of,
    encode,
    request_of,
    result_hash,
)
from fabstir.protocol.prompt_job import handover
from fabstir.protocol.prompt_log import (
    ClaimHeld,
    ClaimSent,
    CompleteSent,
    ExecutionStarted,
    PromptCompleted,
    PromptLedger,
    PromptSeen,
    ResultMade,
    ResultStored,
)
from fabstir.protocol.prompt_signing import market_terms, prompt_id
from fabstir.protocol.sealed import ENTROPY, Binding, Content, SealingKey, check_cid, cid, seal, unseal
from fabstir.protocol.settlement import MarketState, Open, Redeem, apply
from fabstir.protocol.signing import SigningKey, job_id, recover
from fabstir.protocol.transcript import TokenRecord
from fabstir.testing.memory_board import MemoryBoard
from tests.protocol.prompting import BOARD, MARKET, MODEL, RENTER, START, TOKEN, host_address, queue_rules, terms

HOST, OTHER = host_address(0), host_address(1)
SIGNER = SigningKey(b"\x0b" * 32)
HOST_KEY, OTHER_KEY, RENTER_KEY, ARBITER_KEY = (SealingKey(bytes([n]) * 32) for n in (21, 22, 23, 24))
BODY = PromptBody(
    messages=(ChatMessage("user", "What is love?"),), reply_key=RENTER_KEY.public, record_salt=b"\x31" * 32
)
ANSWER = PromptResult(
    text="Baby", finish_reason="stop", records=tuple(TokenRecord(n, -n, ((n, -n),)) for n in range(40))
)


def ask() -> tuple[PromptTerms, bytes]:
    """The renter seals the prompt to the hosts that it would take, to itself and to the arbiter; its CID goes into the terms."""
    salt = Hash32(b"\x41" * 32)
    to = tuple(key.public for key in (HOST_KEY, OTHER_KEY, RENTER_KEY, ARBITER_KEY))
    sealed = seal(encode(BODY), to, Binding(Content.PROMPT, salt, MODEL), bytes(range(ENTROPY)))
    return terms(salt=salt, prompt_cid=cid(sealed), signer=SIGNER.address), sealed


def answer(wanted: PromptTerms, sealed: bytes) -> tuple[PromptLedger, bytes]:
    """The host opens it, generates, seals the answer to the key in the prompt, and writes down what it must."""
    check_cid(sealed, wanted.prompt_cid)
    content = unseal(sealed, HOST_KEY, Binding.of(Content.PROMPT, wanted))
    body = decode_body(content)
    result = encode(ANSWER)
    reply = seal(result, (body.reply_key,), Binding.of(Content.RESULT, wanted), bytes(ENTROPY))
    digests = b"".join(digests_of(body, ANSWER.records))
    made = ResultMade(cid(reply), result_hash(body, result), request_of(body, content), digests, START)
    ledger = PromptLedger(PromptSeen(wanted, BOARD, MARKET, HOST, START))
    held = ClaimHeld(queue_rules(HOST).offers[MODEL, TOKEN].price, START + 60, START)
    for event in (ClaimSent(1, START), held, ExecutionStarted(START), made, ResultStored(START), CompleteSent(START)):
        ledger.apply(event)
    return ledger, reply


def test_from_the_prompt_to_the_money() -> None:
    """The renter gets exactly the answer and pays exactly for it, by one signature and without a proof."""
    wanted, sealed = ask()
    board = MemoryBoard(BOARD)
    board.now = START
    board.register(HOST, MODEL, TOKEN, queue_rules(HOST).offers[MODEL, TOKEN].price)
    board.post(RENTER, wanted)
    board.claim(HOST, wanted, HOST)
    host, reply = answer(wanted, sealed)
    result = host.result
    assert result is not None
    board.complete(HOST, wanted, host.tokens, result.cid, result.hash)
    done = board.completion(prompt_id(wanted))
    assert done is not None
    host.apply(PromptCompleted(done, START))
    settled = HostLedger.replay(list(handover(host, START)))

    # the renter: everything from the chain, the store and its own key
    check_cid(reply, done.result_cid)
    content = unseal(reply, RENTER_KEY, Binding.of(Content.RESULT, wanted))
    mine = unseal(sealed, RENTER_KEY, Binding.of(Content.PROMPT, wanted))
    body = decode_body(mine)
    found = check_result(body, content, done.result_hash, done.tokens)
    job = market_terms(BOARD, wanted, done)
    head = answer_head(MARKET, job, request_of(body, mine), digests_of(body, found.records))
    assert (found, head) == (ANSWER, host.head)
    assert head == settled.head and settled.terms == job

    # the market
    amount = BaseUnits(40)
    signature = SIGNER.sign(MARKET.voucher_digest(job_id(job), amount, Tokens(40), head))
    signer = recover(
        MARKET.voucher_digest(settled.job, settled.amount(settled.served), settled.served, settled.head), signature
    )
    treasury = Address(b"\x99" * 20)
    state = apply(MarketState(treasury), Open(BOARD, job, settled.deposit), START, 1)
    assert job.policy is ProofPolicy.FALLBACK
    state = apply(state, Redeem(HOST, job_id(job), amount, Tokens(40), signer), START, 2)
    assert state.earnings[HOST, TOKEN] == 40 - fee_of(amount)
    assert board.refunded[RENTER, TOKEN] == 160


def test_only_the_right_people_read_it() -> None:
    """Hosts that it was sealed to read the prompt; the answer is the renter's alone."""
    wanted, sealed = ask()
    _, reply = answer(wanted, sealed)
    for key in (HOST_KEY, OTHER_KEY, RENTER_KEY, ARBITER_KEY):
        assert decode_body(unseal(sealed, key, Binding.of(Content.PROMPT, wanted))) == BODY
    for key in (HOST_KEY, OTHER_KEY, ARBITER_KEY):
        with pytest.raises(FabstirError, match="seal_not_for_us"):
            unseal(reply, key, Binding.of(Content.RESULT, wanted))


def test_another_jobs_answer_is_no_answer() -> None:
    """A host that hands over what it made for an earlier prompt of the same renter is found out, CID and hash right or not."""
    wanted, sealed = ask()
    _, reply = answer(wanted, sealed)
    later = terms(salt=Hash32(b"\x42" * 32), prompt_cid=wanted.prompt_cid, signer=SIGNER.address)
    with pytest.raises(FabstirError, match="seal_invalid"):
        unseal(reply, RENTER_KEY, Binding.of(Content.RESULT, later))
    with pytest.raises(FabstirError, match="seal_invalid"):
        check_cid(reply, Cid(bytes(32)))
