"""What a model is called on chain: the hash of where it comes from and what its bytes are.

`ModelRegistry` computes the same (`keccak256(abi.encode(repository, file, sha256))`); weights that differ in one bit
are another model.
"""

from __future__ import annotations

from eth_abi.abi import encode

from fabstir.domain.ids import Hash32, ModelId
from fabstir.protocol.signing import keccak


def model_id(repository: str, file: str, sha256: Hash32) -> ModelId:
    """The id of the weights file `file` of `repository`."""
    return ModelId(keccak(encode(["string", "string", "bytes32"], [repository, file, sha256])))
