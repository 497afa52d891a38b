"""The ids of a prompt job: what the `PromptBoard` computes from the same terms, for the prompt and for the market job that pays
for it. Pure; signs nothing, since vouchers and closes of the market job are signed as in every session
(`fabstir.protocol.signing`). Specification: contracts/src/PromptBoard.sol.
"""

from __future__ import annotations

from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits, cost
from fabstir.domain.prompts import PromptCompletion, PromptId, PromptTerms
from fabstir.domain.terms import OPENER_SALT_BYTES, Terms, salt_for
from fabstir.protocol.signing import keccak


def prompt_id(terms: PromptTerms) -> PromptId:
    """keccak-256 of abi.encode(terms): fifteen words in the contract's field order."""
    addresses = (terms.renter, terms.signer, terms.token, terms.assigner, terms.arbiter)
    numbers = (
        terms.ceiling,
        terms.bond,
        terms.max_tokens,
        terms.deadline,
        terms.execute_seconds,
        terms.challenge,
        terms.policy,
    )
    words = [bytes(12) + address for address in addresses]
    words += [number.to_bytes(32, "big") for number in numbers]
    return PromptId(keccak(b"".join((*words, terms.model_id, terms.prompt_cid, terms.salt))))


def job_salt(board: Address, prompt: PromptId) -> Hash32:
    """The salt of the prompt's market job: the board, which alone may therefore open it, and the last 8 bytes of the id."""
    return salt_for(board, prompt[-OPENER_SALT_BYTES:])


def escrow_of(terms: PromptTerms) -> BaseUnits:
    """What the renter deposits: the longest answer at the highest price."""
    return cost(terms.max_tokens, terms.ceiling)


def market_terms(board: Address, terms: PromptTerms, done: PromptCompletion) -> Terms:
    """The terms of the job that `complete` opened: the whole answer is the part that the renter did not sign for."""
    return Terms(
        renter=terms.renter,
        signer=terms.signer,
        host=done.host,
        token=terms.token,
        arbiter=terms.arbiter,
        price=done.price,
        bond=terms.bond,
        expires_at=done.expires_at,
        challenge=terms.challenge,
        exposure=done.tokens,
        policy=terms.policy,
        model_id=terms.model_id,
        salt=job_salt(board, prompt_id(terms)),
    )
