"""A signed transfer of USDC for exactly one deposit (EIP-3009 `receiveWithAuthorization`): its nonce is the job id, or for a
top-up the hash of the job id and the deposit that is topped up.

With it nobody needs an approval and no allowance ever stands open; anyone may relay it, and it can pay
for nothing else. Pure.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import BaseUnits
from fabstir.protocol.signing import EIP712_DOMAIN, keccak

TOKEN_NAME: Final = "USD Coin"  # noqa: S105 - the EIP-712 domain of USDC, not a secret
TOKEN_VERSION: Final = "2"  # noqa: S105
_RECEIVE: Final = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


def authorization_digest(
    chain_id: int, token: Address, renter: Address, market: Address, amount: BaseUnits, valid_before: int, nonce: Hash32
) -> Hash32:
    """What the renter's wallet signs: `market` may take `amount` once, for what `nonce` stands for, until `valid_before`."""
    domain = keccak(
        EIP712_DOMAIN + keccak(TOKEN_NAME.encode()) + keccak(TOKEN_VERSION.encode()) + _word(chain_id) + _pad(token)
    )
    struct = keccak(_RECEIVE + _pad(renter) + _pad(market) + _word(amount) + _word(0) + _word(valid_before) + nonce)
    return keccak(b"\x19\x01" + domain + struct)


def top_up_nonce(job: JobId, deposit: BaseUnits) -> Hash32:
    """`JobMarketplace.topUpNonce`: this job, at this deposit."""
    return keccak(job + _word(deposit))


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _pad(address: Address) -> bytes:
    return bytes(12) + address
