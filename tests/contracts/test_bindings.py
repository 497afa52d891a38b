"""The generated bindings speak the contracts' language: calls, returned structs, events and errors survive the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.chain import artifacts
from fabstir.chain.bindings import (
    EpochProofs,
    Head,
    HostStake,
    JobMarketplace,
    JobOpened,
    ModelRegistry,
    NodeRegistry,
    Offer,
    Opening,
    ProofSystem,
    TestUSDC,
    Transfer,
    Turn,
    decode_revert,
)
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.domain.errors import ChainFault, LocalFault
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol.signing import Market, job_id, keccak
from tests.contracts.evm import CHAIN_ID, DEPLOYER, CallReverted, Evm

ZERO = bytes(32)
NO_HEAD = Head(ZERO, 0, 0, 0)
ADDRESSES = st.binary(min_size=20, max_size=20).map(Address)
WORDS = st.binary(min_size=32, max_size=32)
TERMS = st.builds(
    AbiTerms, ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES, st.integers(0, 2**96 - 1), st.integers(0, 2**96 - 1),
    st.integers(0, 2**40 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1), WORDS, WORDS,
)  # fmt: skip


@pytest.fixture(scope="module")
def evm() -> Evm:
    """An empty chain."""
    return Evm()


@pytest.fixture(scope="module")
def market(evm: Evm) -> Address:
    """A market without proofs and stakes."""
    proofs = evm.deploy(ProofSystem.deploy_data(DEPLOYER))
    stakes, epochs = stakes_of(evm, evm.deploy(TestUSDC.deploy_data())), evm.deploy(EpochProofs.deploy_data(proofs))
    return evm.deploy(JobMarketplace.deploy_data(Address(b"\x01" * 20), proofs, stakes, epochs))


def stakes_of(evm: Evm, usdc: Address) -> Address:
    """A stake contract: 100 to be listed."""
    return evm.deploy(HostStake.deploy_data(DEPLOYER, usdc, Address(b"\x01" * 20), 100, 10, 5))


@given(terms=TERMS)
def test_terms_hash_as_in_the_contract(evm: Evm, market: Address, terms: AbiTerms) -> None:
    """The node's job id is the contract's, for any terms."""
    ours = job_id(
        Terms(
            renter=terms.renter, signer=terms.signer, host=terms.host, token=terms.token,
            arbiter=terms.arbiter, price=PricePerMTok(terms.price_per_m_tok), bond=BaseUnits(terms.bond),
            expires_at=terms.expires_at, challenge=terms.challenge, exposure=Tokens(terms.exposure),
            policy=ProofPolicy(terms.policy), model_id=ModelId(terms.model_id), salt=Hash32(terms.salt),
        )
    )  # fmt: skip
    assert JobMarketplace.decode_id_of(evm.view(market, JobMarketplace.encode_id_of(terms))) == ours


@given(job=WORDS.map(JobId), amount=st.integers(0, 2**96 - 1), tokens=st.integers(0, 2**32 - 1), transcript=WORDS)
def test_digests_are_the_contracts(
    evm: Evm, market: Address, job: JobId, amount: int, tokens: int, transcript: bytes
) -> None:
    """Vouchers and consents are signed over exactly what the contract recovers from."""
    ours = Market(CHAIN_ID, market)
    voucher = evm.view(market, JobMarketplace.encode_voucher_digest(job, amount, tokens, transcript))
    close = evm.view(market, JobMarketplace.encode_close_digest(job, amount, tokens))
    assert voucher == ours.voucher_digest(job, BaseUnits(amount), Tokens(tokens), Hash32(transcript))
    assert close == ours.close_digest(job, BaseUnits(amount), Tokens(tokens))


@given(terms=TERMS, deposit=st.integers(0, 2**96 - 1))
def test_calldata_reads_back(terms: AbiTerms, deposit: int) -> None:
    """What was encoded is what was meant."""
    assert JobMarketplace.OPEN.arguments(JobMarketplace.encode_open(terms, deposit)) == (terms, deposit)


@given(
    terms=TERMS,
    records=st.lists(WORDS, max_size=5),
    turns=st.lists(st.builds(Turn, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), WORDS), max_size=3),
    voucher=st.binary(max_size=65),
)
def test_openings_read_back(terms: AbiTerms, records: list[bytes], turns: list[Turn], voucher: bytes) -> None:
    """The one struct with lists of words and of structs in it."""
    opening = Opening(b"t" * 32, b"h" * 32, 9, 4, b"v" * 32, voucher, tuple(records), tuple(turns))
    data = JobMarketplace.encode_answer_dispute(terms, opening)
    assert JobMarketplace.ANSWER_DISPUTE.arguments(data) == (terms, opening)


def test_pages_of_structs_decode(evm: Evm) -> None:
    """A registry's page comes back as named structs, lists and all."""
    usdc = evm.deploy(TestUSDC.deploy_data())
    stakes = stakes_of(evm, usdc)
    models = evm.deploy(ModelRegistry.deploy_data(DEPLOYER))
    nodes = evm.deploy(NodeRegistry.deploy_data(models, stakes))
    proposed = evm.call(
        DEPLOYER, models, ModelRegistry.encode_propose("org/model", "q8.gguf", b"\x01" * 32, ZERO, ZERO, NO_HEAD)
    )
    model = ModelRegistry.decode_propose(proposed)
    evm.call(DEPLOYER, models, ModelRegistry.encode_approve(model, NO_HEAD))
    evm.call(DEPLOYER, usdc, TestUSDC.encode_mint(DEPLOYER, 100))
    evm.call(DEPLOYER, usdc, TestUSDC.encode_approve(stakes, 100))
    evm.call(DEPLOYER, stakes, HostStake.encode_announce(models))  # any contract opens the stakes
    evm.call(DEPLOYER, stakes, HostStake.encode_stake(100))
    offers = (Offer(model, ZERO_ADDRESS, 10**9), Offer(model, usdc, 200_000))
    key = b"\x02" * 32
    evm.call(DEPLOYER, nodes, NodeRegistry.encode_register("http://localhost:1", key, offers))
    page, cursor = NodeRegistry.decode_nodes_for_model(
        evm.view(nodes, NodeRegistry.encode_nodes_for_model(model, 0, 10))
    )
    assert cursor == 0
    assert [(n.account, n.url, n.encryption_key, n.offers, n.active) for n in page] == [
        (DEPLOYER, "http://localhost:1", key, offers, True)
    ]
    listed = ModelRegistry.decode_models(evm.view(models, ModelRegistry.encode_models(0, 10)))
    assert listed.ids == (model,) and listed.page[0].repository == "org/model" and listed.page[0].status == 2


def test_events_decode_from_text_and_bytes() -> None:
    """A log of JSON-RPC (hexadecimal) and one of web3 (bytes) give the same event, with its struct inside."""
    renter, signer, host, token, arbiter = (Address(bytes([n]) * 20) for n in range(1, 6))
    terms = AbiTerms(renter, signer, host, token, arbiter, 7, 3, 8, 900, 64, 1, b"m" * 32, b"s" * 32)
    job = keccak(b"job")
    topics = [JobOpened.TOPIC, job, bytes(12) + terms.renter, bytes(12) + terms.host]
    data = JobMarketplace.encode_open(terms, 5)[4:]
    expected = JobOpened(id=job, renter=terms.renter, host=terms.host, terms=terms, deposit=5)
    codec = JobMarketplace.EVENTS[JobOpened.TOPIC]
    assert codec.decode({"topics": topics, "data": data}) == expected
    assert codec.decode({"topics": ["0x" + t.hex() for t in topics], "data": "0x" + data.hex()}) == expected


def test_foreign_logs_are_refused() -> None:
    """A log of another event, or one with missing topics or data, is no event."""
    codec = JobMarketplace.EVENTS[JobOpened.TOPIC]
    for topics, data in (([Transfer.TOPIC], b""), ([], b""), ([JobOpened.TOPIC], b""), ([JobOpened.TOPIC] * 4, b"")):
        with pytest.raises(ChainFault, match="chain_mismatch"):
            codec.decode({"topics": topics, "data": data})


def test_topics_are_the_signatures_hash() -> None:
    """Checked against a topic that the whole world knows."""
    assert keccak(b"Transfer(address,address,uint256)") == Transfer.TOPIC


def test_errors_are_named_with_what_they_say(evm: Evm, market: Address) -> None:
    """A revert is told by name and numbers."""
    with pytest.raises(CallReverted) as refusal:
        evm.call(DEPLOYER, market, JobMarketplace.encode_withdraw(market, DEPLOYER))
    assert str(refusal.value.revert) == "NothingToClaim()"
    data = keccak(b"AboveDeposit(uint256,uint256)")[:4] + (5).to_bytes(32, "big") + (6).to_bytes(32, "big")
    assert str(decode_revert(data)) == "AboveDeposit(5, 6)"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ("", ())),
        (bytes.fromhex("deadbeef"), ("0xdeadbeef", ())),
        (bytes.fromhex("deadbeef01"), ("0xdeadbeef", (b"\x01",))),
        (bytes.fromhex("08c379a0"), ("Error", (b"",))),
        (b"\x01", ("0x01", ())),
    ],
)
def test_unknown_reverts_are_told_as_they_are(data: bytes, told: tuple) -> None:
    """Whatever a contract returns, naming it never fails."""
    assert decode_revert(data) == told


def test_answers_of_something_else_are_refused() -> None:
    """No contract at the address answers nothing; that is a fault of the chain, not a zero."""
    with pytest.raises(ChainFault, match="chain_mismatch"):
        JobMarketplace.decode_jobs(b"")
    with pytest.raises(ChainFault, match="chain_mismatch"):
        JobMarketplace.OPEN.arguments(b"\x00" * 4)


def test_unknown_artifact_is_refused() -> None:
    """A contract that is not in the package is named."""
    with pytest.raises(LocalFault, match="config_invalid"):
        artifacts.load("Nothing")
