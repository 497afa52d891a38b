"""EIP-1559 transactions: how they are encoded, signed, named and read back.

Pure, and small enough to need no library: the one transaction type of Base with an empty access list, signed with
coincurve (tests/chain/test_transactions.py holds it against eth_account). Specification: EIP-1559, EIP-2718, the RLP
appendix of the Yellow Paper.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.chain.fees import Fee
from fabstir.domain.ids import Address, Hash32
from fabstir.protocol.signing import SigningKey, keccak

TYPE: Final = b"\x02"
Item = bytes | list["Item"]


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction says."""

    chain_id: int
    nonce: int
    fee: Fee
    gas: int
    to: Address
    value: int
    data: bytes


class Signed(msgspec.Struct, frozen=True):
    """Ready to be sent; `hash` is its name on the chain."""

    raw: bytes
    hash: Hash32


def sign(transaction: Transaction, key: SigningKey) -> Signed:
    """Deterministic: the same transaction and key give the same bytes."""
    fields = _fields(transaction)
    signature = key.sign(keccak(TYPE + _encode(fields)))
    parity = signature[64] - 27
    r, s = signature[:32].lstrip(b"\0"), signature[32:64].lstrip(b"\0")
    raw = TYPE + _encode([*fields, _integer(parity), r, s])
    return Signed(raw, keccak(raw))


def read(raw: bytes) -> Transaction:
    """What a transaction made by `sign` says. Raises ValueError on anything else."""
    if raw[:1] != TYPE:
        raise ValueError("not an EIP-1559 transaction")
    item, rest = _decode(raw[1:])
    if rest or not isinstance(item, list) or len(item) != 12:
        raise ValueError("not a signed EIP-1559 transaction")
    chain_id, nonce, tip, max_fee, gas, to, value, data = (_bytes(part) for part in item[:8])
    return Transaction(
        chain_id=_number(chain_id),
        nonce=_number(nonce),
        fee=Fee(_number(max_fee), _number(tip)),
        gas=_number(gas),
        to=Address(to),
        value=_number(value),
        data=data,
    )


def _fields(transaction: Transaction) -> list[Item]:
    return [
        _integer(transaction.chain_id),
        _integer(transaction.nonce),
        _integer(transaction.fee.tip),
        _integer(transaction.fee.max_fee),
        _integer(transaction.gas),
        transaction.to,
        _integer(transaction.value),
        transaction.data,
        [],
    ]


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _bytes(item: Item) -> bytes:
    if isinstance(item, list):
        raise ValueError("a list where a string was due")
    return item


def _encode(item: Item) -> bytes:
    """RLP."""
    if isinstance(item, list):
        body = b"".join(map(_encode, item))
        return _length(len(body), 0xC0) + body
    if len(item) == 1 and item[0] < 0x80:
        return item
    return _length(len(item), 0x80) + item


def _length(size: int, offset: int) -> bytes:
    if size < 56:
        return bytes((offset + size,))
    digits = _integer(size)
    return bytes((offset + 55 + len(digits),)) + digits


def _decode(data: bytes) -> tuple[Item, bytes]:
    """The first RLP item and what follows it."""
    if not data:
        raise ValueError("cut off")
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    offset = 0x80 if first < 0xC0 else 0xC0
    start, size = 1, first - offset
    if size > 55:
        start += size - 55
        size = _number(data[1:start])
    body, rest = data[start : start + size], data[start + size :]
    if len(body) != size:
        raise ValueError("cut off")
    if offset == 0x80:
        return body, rest
    items: list[Item] = []
    while body:
        item, body = _decode(body)
        items.append(item)
    return items, rest
