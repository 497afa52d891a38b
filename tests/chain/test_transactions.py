"""Transactions are byte for byte what eth_account makes, and read back as what was signed."""

from __future__ import annotations

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from fabstir.chain import transactions
from fabstir.chain.fees import Fee
from fabstir.chain.transactions import Transaction
from fabstir.domain.ids import Address
from fabstir.protocol.signing import SigningKey

SECRETS = st.integers(1, 2**255).map(lambda number: number.to_bytes(32, "big"))
TRANSACTIONS = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**53),
    nonce=st.integers(0, 2**53),
    fee=st.builds(Fee, st.integers(0, 2**80), st.integers(0, 2**80)),
    gas=st.integers(21_000, 2**40),
    to=st.binary(min_size=20, max_size=20).map(Address),
    value=st.integers(0, 2**100),
    data=st.binary(max_size=70) | st.binary(min_size=250, max_size=300),
)


@given(TRANSACTIONS, SECRETS)
def test_bytes_and_hash_are_those_of_eth_account(transaction: Transaction, secret: bytes) -> None:
    """The oracle is the library that wallets use; empty, one-byte and long data included."""
    theirs = Account.sign_transaction(
        {
            "type": 2,
            "chainId": transaction.chain_id,
            "nonce": transaction.nonce,
            "maxPriorityFeePerGas": transaction.fee.tip,
            "maxFeePerGas": transaction.fee.max_fee,
            "gas": transaction.gas,
            "to": transaction.to,
            "value": transaction.value,
            "data": transaction.data,
        },
        secret,
    )
    ours = transactions.sign(transaction, SigningKey(secret))
    assert (ours.raw, ours.hash) == (bytes(theirs.raw_transaction), bytes(theirs.hash))


@given(TRANSACTIONS, SECRETS)
def test_a_signed_form_reads_back(transaction: Transaction, secret: bytes) -> None:
    """The outbox finds fee, gas and nonce of a form that an earlier process signed."""
    assert transactions.read(transactions.sign(transaction, SigningKey(secret)).raw) == transaction


@given(TRANSACTIONS, SECRETS, st.data())
def test_a_cut_form_is_refused(transaction: Transaction, secret: bytes, data: st.DataObject) -> None:
    """A store that gives back less than was put is noticed."""
    raw = transactions.sign(transaction, SigningKey(secret)).raw
    with pytest.raises(ValueError):  # noqa: PT011 - which of the checks sees it depends on the cut
        transactions.read(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize("raw", [b"", b"\x01\xc0", b"\x02\x80", b"\x02\xc0", b"\x02" + b"\xcc" + b"\xc0" * 12])
def test_anything_else_is_refused(raw: bytes) -> None:
    """Other types, other shapes."""
    with pytest.raises(ValueError):  # noqa: PT011 - as above
        transactions.read(raw)
