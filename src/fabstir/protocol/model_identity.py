"""What a model is called on chain: the hash of where it comes from and what its bytes, its tokenizer and its template are.

`ModelRegistry` computes the same (`keccak256(abi.encode(repository, file, sha256, tokenizer, template))`); weights that
differ in one bit, another tokenizer or another chat template are another model. Beside the id the registry may know a commitment to
the rows of the output head (`HeadCommitment`), without which the circuit `spot` cannot speak of the model.
"""

from __future__ import annotations

from typing import Final

import msgspec
from eth_abi.abi import encode

from fabstir.domain.ids import Hash32, ModelId
from fabstir.protocol.signing import keccak

NOT_STATED: Final = Hash32(bytes(32))
"""Of a tokenizer or template that is not in the weights file."""
_TYPES: Final = ("string", "string", "bytes32", "bytes32", "bytes32")


class ModelIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a model's id says."""

    repository: str
    file: str
    sha256: Hash32
    tokenizer: Hash32 = NOT_STATED
    """SHA-256 of the vocabulary and its rules as the weights file states them (`fabstir.models.identity`)."""
    template: Hash32 = NOT_STATED
    """SHA-256 of the chat template."""

    @property
    def model_id(self) -> ModelId:
        """As `ModelRegistry.idOf` has it."""
        values = (self.repository, self.file, self.sha256, self.tokenizer, self.template)
        return ModelId(keccak(encode(_TYPES, values)))


class HeadCommitment(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a model's output head, committed (`fabstir.protocol.head_tree`)."""

    root: Hash32
    rows: int
    width: int
    scale: int
    """A weight w is the integer round(w * 2^scale)."""


NO_HEAD: Final = HeadCommitment(root=Hash32(bytes(32)), rows=0, width=0, scale=0)
"""Of a model that `spot` cannot speak of."""
