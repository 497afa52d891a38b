"""What a deployment leaves beside the address book: parameters and salt before anything is sent, and what explorers need afterwards.

One JSON file for each network. Only reads and writes; whether an unfinished one may go on is decided by `checklist`, what of it is done
is asked from the chain (`deployer`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from fabstir.chain import artifacts
from fabstir.chain.addresses import replace_file
from fabstir.chain.deployment import Plan
from fabstir.domain.errors import error
from fabstir.domain.ids import to_hex


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """One contract, as an explorer's form asks for it."""

    address: str
    source: str
    """`src/HostStake.sol:HostStake`, below contracts/."""
    arguments: str
    """Constructor's, ABI-encoded."""
    source_hash: str


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deployment."""

    network: str
    chain_id: int
    salt: str
    deployer: str
    owner: str
    treasury: str
    token: str | None
    circuit: str | None
    amounts: tuple[int, int, int]
    """Minimum stake, slash, compensation."""
    contracts: dict[str, Contract]
    finished: bool = False


def record_of(network: str, made: Plan, *, finished: bool = False) -> Record:
    """What is to be kept of `made`."""
    wanted = made.parameters
    return Record(
        network=network,
        chain_id=wanted.chain_id,
        salt=to_hex(made.salt),
        deployer=to_hex(wanted.deployer),
        owner=to_hex(wanted.owner),
        treasury=to_hex(wanted.treasury),
        token=to_hex(wanted.token) if wanted.token else None,
        circuit=to_hex(wanted.circuit) if wanted.circuit else None,
        amounts=(wanted.minimum, wanted.slash, wanted.compensation),
        contracts={
            step.name: Contract(
                address=to_hex(step.address),
                source=_source(step.name),
                arguments=to_hex(step.arguments),
                source_hash=artifacts.load(step.name).source_hash,
            )
            for step in made.creates
        },
        finished=finished,
    )


def differences(begun: Record, wanted: Record) -> list[str]:
    """Names of what was begun otherwise; empty where `wanted` can go on with it."""
    fields = [name for name in Record.__struct_fields__ if name not in ("finished", "contracts")]
    found = [name for name in fields if getattr(begun, name) != getattr(wanted, name)]
    return found or ([] if begun.contracts == wanted.contracts else ["contracts"])


def file_of(book: Path, network: str) -> Path:
    """Beside the address book."""
    return book.with_name(f"deployment-{network}.json")


def load(path: Path) -> Record | None:
    """None where there is none. Raises `config_invalid` on a file that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as cause:
        raise error("config_invalid", detail=f"{path}: {cause}") from cause


def save(path: Path, record: Record) -> None:
    """Readers see the old file or the new one."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def _source(name: str) -> str:
    folder = "src/generated" if name == "Halo2BindVerifier" else "src"
    return f"{folder}/{name}.sol:{name}"
