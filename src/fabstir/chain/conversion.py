"""Domain types as the generated bindings take them, and back. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fabstir.chain import bindings
from fabstir.domain.ids import Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ClaimStage, JobState, Terms
from fabstir.ports.chain import ClaimArgs, HostEntry, ProofArgs, RegisteredOffer
from fabstir.protocol.model_identity import HeadCommitment, ModelIdentity
from fabstir.protocol.opening import Opening
from fabstir.protocol.signing import compact


def abi_terms(terms: Terms) -> bindings.Terms:
    return bindings.Terms(
        renter=terms.renter,
        signer=terms.signer,
        host=terms.host,
        token=terms.token,
        arbiter=terms.arbiter,
        price_per_m_tok=terms.price,
        bond=terms.bond,
        expires_at=terms.expires_at,
        challenge=terms.challenge,
        exposure=terms.exposure,
        policy=terms.policy,
        model_id=terms.model_id,
        salt=terms.salt,
    )


def abi_head(head: HeadCommitment) -> bindings.Head:
    return bindings.Head(root=head.root, rows=head.rows, width=head.width, scale=head.scale)


def propose_model(model: ModelIdentity, head: HeadCommitment) -> bytes:
    """The call of `ModelRegistry`."""
    return bindings.ModelRegistry.encode_propose(
        model.repository, model.file, model.sha256, model.tokenizer, model.template, abi_head(head)
    )


def approve_model(model_id: ModelId, head: HeadCommitment) -> bytes:
    """The call of `ModelRegistry`."""
    return bindings.ModelRegistry.encode_approve(model_id, abi_head(head))


def abi_claim(claim: ClaimArgs) -> bindings.Claim:
    return bindings.Claim(abi_terms(claim.terms), claim.amount, claim.tokens, claim.transcript, claim.signature)


def abi_epoch_claims(
    claims: Sequence[ClaimArgs], tree_roots: Sequence[Hash32]
) -> tuple[bindings.Shared, list[bindings.EpochClaim]]:
    """What the claims have in common, and each one's own. Raises ValueError where token, policy or model differ, or there are none."""
    common = {(claim.terms.token, claim.terms.policy, claim.terms.model_id) for claim in claims}
    if len(common) != 1:
        raise ValueError("one token, one policy, one model in each redemption")
    pairs = zip(claims, tree_roots, strict=True)
    return bindings.Shared(*common.pop()), [_abi_epoch_claim(claim, tree_root) for claim, tree_root in pairs]


def _abi_epoch_claim(claim: ClaimArgs, tree_root: Hash32) -> bindings.EpochClaim:
    terms = claim.terms
    r, vs = compact(claim.signature)
    return bindings.EpochClaim(
        renter=terms.renter,
        signer=terms.signer,
        arbiter=terms.arbiter,
        price_per_m_tok=terms.price,
        bond=terms.bond,
        expires_at=terms.expires_at,
        challenge=terms.challenge,
        exposure=terms.exposure,
        salt=terms.salt,
        tokens=claim.tokens,
        tree_root=tree_root,
        transcript=claim.transcript,
        r=r,
        vs=vs,
    )


def abi_proof(proof: ProofArgs) -> bindings.Proof:
    return bindings.Proof(
        circuit_id=proof.circuit_id,
        tree_root=proof.tree_root,
        head=proof.head,
        tokens=proof.tokens,
        checkpoint_tokens=proof.checkpoint_tokens,
        commitment=proof.commitment,
        path=[bindings.SumNode(node.hash, node.tokens, node.left) for node in proof.path],
        proof=proof.proof,
    )


def abi_opening(opening: Opening) -> bindings.Opening:
    return bindings.Opening(
        tree_root=opening.tree_root,
        head=opening.head,
        tokens=opening.tokens,
        from_=opening.first,
        transcript=opening.transcript,
        voucher=opening.voucher,
        records=opening.records,
        turns=[bindings.Turn(turn.tokens, turn.message_index, turn.request) for turn in opening.turns],
    )


def abi_offer(offer: RegisteredOffer) -> bindings.Offer:
    return bindings.Offer(offer.model_id, offer.token, offer.price)


def host_entry(node: bindings.Node) -> HostEntry:
    offers = tuple(RegisteredOffer(ModelId(o.model_id), o.token, PricePerMTok(o.price)) for o in node.offers)
    key = Hash32(node.encryption_key)
    return HostEntry(address=node.account, url=node.url, encryption_key=key, offers=offers, active=node.active)


def job_state(found: bindings.JobView) -> JobState:
    return JobState(
        deposit=BaseUnits(found.deposit),
        owed=BaseUnits(found.owed),
        signed=Tokens(found.signed),
        proven=Tokens(found.proven),
        closed=found.closed,
        closing_at=found.closing_at,
        pending_block=found.pending_block,
        held=BaseUnits(found.held),
        held_tokens=Tokens(found.held_tokens),
        held_until=found.held_until,
        stage=ClaimStage(found.stage),
    )
