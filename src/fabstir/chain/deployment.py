"""What a deployment consists of: every contract with its constructor's arguments, the calls after them, and how each is recognised
once it is there.

Pure. The contracts are made with CREATE2 by the factory that stands at the same address on every chain, so all addresses follow
from parameters and salt before anything is sent: what is done can be read from the chain, and an interrupted deployment
goes on where it stopped. Sends nothing (`deployer`), allows nothing (`checklist`). Specification: contracts/src.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fabstir.chain import artifacts, bindings
from fabstir.domain.ids import Address, Hash32, address
from fabstir.domain.money import BaseUnits
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.openings import BIND_CIRCUIT, SAMPLE_CIRCUIT
from fabstir.protocol.signing import keccak

FACTORY: Final = address("0x4e59b44847b379578588920ca78fbf26c0b4956c")
"""Takes salt || creation code; keyless, hence at this address on Base, its test network and anvil alike."""
FACTORY_CODE: Final = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd"
    "5b8082525050506014600cf3"
)

MINIMUM_STAKE: Final = BaseUnits(100_000_000)
"""What a host must have staked to be in the registry: 100 USDC."""
SLASH: Final = BaseUnits(10_000_000)
"""What a lost claim takes of it."""
COMPENSATION: Final = BaseUnits(5_000_000)
"""What the renter gets of that, first."""

MERKLE: Final = {
    "merkle/bind": (BIND_CIRCUIT, "MerkleBindVerifier"),
    "merkle/sample": (SAMPLE_CIRCUIT, "MerkleSampleVerifier"),
}
"""Circuits without a reference string: (id, contract)."""

OWNED: Final = ("ModelRegistry", "HostStake", "ProofSystem")
"""Contracts with an owner, who can add to them and change nothing."""

CALL_GAS: Final = 120_000
"""Bounds each call after the contracts: at most three new slots and an event."""
CONSTRUCTOR_GAS: Final = 400_000
"""Bounds what a constructor does beside returning its code: JobMarketplace computes an EIP-712 domain and fills no slot."""

Argument = Address | int


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what is deployed."""

    chain_id: int
    deployer: Address
    owner: Address
    """Of the registries in the end. Two steps: the deployer offers, the owner accepts."""
    treasury: Address
    token: Address | None
    """In which hosts stake; None: a test token is deployed."""
    circuit: Hash32 | None
    """Of ezkl, registered with the verifier of the package; None: without it. The circuits of MERKLE need no reference string and are
    always there."""
    spot: Hash32 | None = None
    """The circuit `spot`, likewise; None: nobody proves anything about rows of a model."""
    minimum: BaseUnits = MINIMUM_STAKE
    slash: BaseUnits = SLASH
    compensation: BaseUnits = COMPENSATION


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A read that tells whether something is as it should be."""

    what: str
    """`HostStake.treasury`."""
    to: Address
    data: bytes
    word: bytes | None = None
    """The first 32 bytes of the answer; None: anything but zeros."""

    def holds(self, answer: bytes) -> bool:
        """Whether this answer is the wanted one."""
        first = answer[:32]
        return any(first) if self.word is None else first == self.word


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """One contract."""

    name: str
    address: Address
    data: bytes
    """For the factory."""
    arguments: bytes
    """Encoded, as explorers ask for them."""
    probes: tuple[Probe, ...]
    """All hold afterwards: each argument reads back."""

    @property
    def to(self) -> Address:
        """Who is called."""
        return FACTORY

    @property
    def gas(self) -> int:
        """An upper estimate that needs no chain."""
        code = artifacts.load(self.name).deployed_bytecode
        return _base_gas(self.data) + 32_000 + 200 * len(code) + CONSTRUCTOR_GAS


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the deployer."""

    name: str
    """For people and as the intent's name: `HostStake.announce`."""
    to: Address
    data: bytes
    probes: tuple[Probe, ...]
    """One of them holds afterwards."""

    @property
    def gas(self) -> int:
        """An upper estimate that needs no chain."""
        return _base_gas(self.data) + CALL_GAS


Step = Create | Call


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, in order."""

    parameters: Parameters
    salt: Hash32
    steps: tuple[Step, ...]
    info: ChainInfo
    """As the address book will have it."""

    @property
    def creates(self) -> tuple[Create, ...]:
        """The contracts alone."""
        return tuple(step for step in self.steps if isinstance(step, Create))


def plan(wanted: Parameters, salt: Hash32) -> Plan:
    """The deployment of `wanted`. Another salt gives other addresses, so that the same market can be deployed twice."""
    draft = _Draft(salt)
    at = draft.create
    usdc = wanted.token or at("TestUSDC")
    models = at("ModelRegistry", wanted.deployer)
    stakes = at("HostStake", wanted.deployer, usdc, wanted.treasury, wanted.minimum, wanted.slash, wanted.compensation)
    registry = at("NodeRegistry", models, stakes)
    proofs = at("ProofSystem", wanted.deployer)
    adapter = at("EzklBindVerifier", at("Halo2BindVerifier")) if wanted.circuit else None
    spot = at("EzklSpotVerifier", at("Halo2SpotVerifier"), models) if wanted.spot else None
    epochs = at("EpochProofs", proofs)
    market = at("JobMarketplace", wanted.treasury, proofs, stakes, epochs)
    board, delegation = at("PromptBoard", market, registry), at("Delegation", market)
    merkle = {name: (circuit, at(contract)) for name, (circuit, contract) in MERKLE.items()}
    draft.announce(stakes, market)
    for name, (circuit, verifier) in merkle.items():
        draft.register(proofs, circuit, verifier, f"ProofSystem.register {name}")
    if wanted.circuit and adapter:
        draft.register(proofs, wanted.circuit, adapter)
    if wanted.spot and spot:
        draft.register(proofs, wanted.spot, spot, "ProofSystem.register spot")
    for name, place in zip(OWNED, (models, stakes, proofs), strict=True):
        draft.hand_over(name, place, wanted.owner)
    info = ChainInfo(
        chain_id=wanted.chain_id,
        market=market,
        registry=registry,
        models=models,
        proofs=proofs,
        usdc=usdc,
        stakes=stakes,
        board=board,
        delegation=delegation,
        epochs=epochs,
    )
    return Plan(parameters=wanted, salt=salt, steps=tuple(draft.steps), info=info)


class _Draft:
    """Collects steps."""

    def __init__(self, salt: Hash32) -> None:
        self._salt = salt
        self.steps: list[Step] = []

    def create(self, name: str, *arguments: Argument) -> Address:
        """Adds a contract, returns where it will be."""
        code: bytes = getattr(bindings, name).deploy_data(*arguments)
        place = create2_address(self._salt, code)
        step = Create(
            name=name,
            address=place,
            data=self._salt + code,
            arguments=code[len(artifacts.load(name).bytecode) :],
            probes=_readbacks(name, place, arguments),
        )
        self.steps.append(step)
        return place

    def announce(self, stakes: Address, market: Address) -> None:
        """The first market may act at once."""
        host_stake = bindings.HostStake
        known = Probe(
            what="HostStake.authorizedFrom(market)", to=stakes, data=host_stake.encode_authorized_from(market)
        )
        self._call("HostStake.announce", stakes, host_stake.encode_announce(market), known)

    def register(self, proofs: Address, circuit: Hash32, adapter: Address, name: str = "ProofSystem.register") -> None:
        """The circuit's verifier, for ever."""
        system = bindings.ProofSystem
        known = Probe(
            what="ProofSystem.verifierOf(circuit)",
            to=proofs,
            data=system.encode_verifier_of(circuit),
            word=word(adapter),
        )
        self._call(name, proofs, system.encode_register(circuit, adapter), known)

    def hand_over(self, name: str, place: Address, owner: Address) -> None:
        """Offers the contract to its owner; nothing to do where the deployer is it."""
        contract = getattr(bindings, name)
        offered = Probe(what=f"{name}.pendingOwner", to=place, data=selector("pendingOwner()"), word=word(owner))
        accepted = Probe(what=f"{name}.owner", to=place, data=selector("owner()"), word=word(owner))
        self._call(f"{name}.transferOwnership", place, contract.encode_transfer_ownership(owner), offered, accepted)

    def _call(self, name: str, to: Address, data: bytes, *probes: Probe) -> None:
        self.steps.append(Call(name=name, to=to, data=data, probes=probes))


def create2_address(salt: Hash32, creation_code: bytes) -> Address:
    """EIP-1014, for the factory."""
    return Address(keccak(b"\xff" + FACTORY + salt + keccak(creation_code))[12:])


def salt_of(nonce: int) -> Hash32:
    """The deployer's nonce at the beginning: the same account never deploys twice to the same addresses."""
    return Hash32(nonce.to_bytes(32, "big"))


def selector(signature: str) -> bytes:
    """The first four bytes of calldata: `owner()`."""
    return keccak(signature.encode())[:4]


def word(value: Argument) -> bytes:
    """As it stands in storage and in return values."""
    return value.to_bytes(32, "big") if isinstance(value, int) else bytes(32 - len(value)) + value


def _readbacks(name: str, place: Address, arguments: tuple[Argument, ...]) -> tuple[Probe, ...]:
    """Every constructor argument has a getter of its name (tests/chain/test_deployment.py). The owner changes, and is looked at last."""
    inputs: list[dict[str, Any]] = next(
        (item["inputs"] for item in artifacts.load(name).abi if item["type"] == "constructor"), []
    )
    getters = [item["name"].rstrip("_") for item in inputs]
    return tuple(
        Probe(what=f"{name}.{getter}", to=place, data=selector(f"{getter}()"), word=word(value))
        for getter, value in zip(getters, arguments, strict=True)
        if getter != "owner"
    )


def _base_gas(data: bytes) -> int:
    """What every transaction pays: 21,000, 16 for a byte of calldata (4 for a zero), 2 for a word of creation code and 6 to hash it."""
    zeros = data.count(0)
    return 21_000 + 16 * (len(data) - zeros) + 4 * zeros + 8 * ((len(data) + 31) // 32)
