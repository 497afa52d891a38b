"""What a desk of prompt jobs is told at its start: the operator's choices, and where sealed content lies. Frozen.

Made by the composition root from the configuration; tests make it directly.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.blobs import BlobStore
from fabstir.protocol.prompt_job import PromptRules
from fabstir.protocol.prompt_rules import ModelOffer, QueueRules


class DeskSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choices. Seconds where nothing else is said."""

    model_id: ModelId
    price: PricePerMTok
    slots: int
    """Answers that are worked on at the same time, claims on their way included."""
    policies: frozenset[ProofPolicy] = frozenset(ProofPolicy)
    arbiters: frozenset[Address] | None = None
    """Accepted ones; None: any."""
    bond_min: BaseUnits = BaseUnits(1)
    """A job whose dispute costs less is not claimed."""
    max_tokens: Tokens = Tokens(4096)
    min_value: BaseUnits = BaseUnits(1)
    """A job whose longest answer is worth less is not claimed."""
    max_unpaid: BaseUnits = BaseUnits(50_000_000)
    max_queued: int = 10_000
    history: float = 86_400.0
    """Jobs that were posted so long before the start are looked for."""
    poll: float = 2.0
    drain_timeout: float = 120.0
    rules: PromptRules = PromptRules()

    def queue_rules(self, host: Address, token: Address, speed: float) -> QueueRules:
        """What the queue goes by, at the measured speed."""
        offer = ModelOffer(price=self.price, tokens_per_second=speed, max_tokens=self.max_tokens)
        return QueueRules(
            host=host,
            offers={(self.model_id, token): offer},
            policies=self.policies,
            arbiters=self.arbiters,
            slots=self.slots,
            max_queued=self.max_queued,
            max_unpaid=self.max_unpaid,
            min_value=self.min_value,
        )


class DeskStores(msgspec.Struct, frozen=True):
    """Where sealed content lies: what others uploaded apart from what this host owes to somebody."""

    uploads: BlobStore
    results: BlobStore
