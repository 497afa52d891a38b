"""Builds the contracts: Solidity -> checked-in artifacts -> generated Python bindings and reference page.

`build.py` compiles with the pinned compiler of node_modules and writes src/fabstir/chain/artifacts/*.json,
src/fabstir/chain/bindings.py and docs/reference/contracts.md. `build.py --check` writes nothing and exits 1 where anything is stale:
without node_modules it compares source hashes, with node_modules it compiles again and compares every byte. `--standard-json DIR`
writes what an explorer verifies a deployed contract with. Fetches nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import bindings
import reference_page

CONTRACTS: Final = Path(__file__).resolve().parent.parent
ARTIFACTS: Final = CONTRACTS.parent / "src/fabstir/chain/artifacts"
BINDINGS: Final = CONTRACTS.parent / "src/fabstir/chain/bindings.py"
REFERENCE: Final = CONTRACTS.parent / "docs/reference/contracts.md"
SETTINGS: Final[dict[str, Any]] = {
    "evmVersion": "cancun",
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "optimizer": {"enabled": True, "runs": 800},
}
OUTPUTS: Final = (
    "abi",
    "evm.bytecode.object",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences",
    "storageLayout",
)
PRODUCTS: Final = {
    "ArbiterPanel": "src/ArbiterPanel.sol",
    "Delegation": "src/Delegation.sol",
    "EpochProofs": "src/EpochProofs.sol",
    "EzklBindVerifier": "src/EzklBindVerifier.sol",
    "EzklSpotVerifier": "src/EzklSpotVerifier.sol",
    "Halo2BindVerifier": "src/generated/Halo2BindVerifier.sol",
    "Halo2SpotVerifier": "src/generated/Halo2SpotVerifier.sol",
    "HostStake": "src/HostStake.sol",
    "JobMarketplace": "src/JobMarketplace.sol",
    "MerkleBindVerifier": "src/MerkleBindVerifier.sol",
    "MerkleSampleVerifier": "src/MerkleSampleVerifier.sol",
    "ModelRegistry": "src/ModelRegistry.sol",
    "NodeRegistry": "src/NodeRegistry.sol",
    "PromptBoard": "src/PromptBoard.sol",
    "ProofSystem": "src/ProofSystem.sol",
    "TestUSDC": "src/TestUSDC.sol",
}
TEST_ARTIFACTS: Final = CONTRACTS.parent / "tests/contracts/artifacts"
TEST_PRODUCTS: Final = {"HashVerifier": "test/HashVerifier.sol"}
"""Contracts that only tests deploy; they are not part of the package."""
_IMPORT: Final = re.compile(r'^import\s[^"]*"([^"]+)"', re.MULTILINE)
_LOCAL_IMPORT: Final = re.compile(r'^import\s[^"]*"(\.[^"]+)"', re.MULTILINE)


def pinned() -> dict[str, str]:
    """The exact versions of compiler and libraries, from package.json."""
    package = json.loads((CONTRACTS / "package.json").read_text())
    return dict(package["dependencies"])


def source_hash(path: str) -> str:
    """SHA-256 over all that decides a contract's bytecode: its sources, the pinned versions and the settings."""
    files = closure(path)
    content = [[str(file.relative_to(CONTRACTS)), file.read_text()] for file in sorted(files)]
    return hashlib.sha256(json.dumps([content, pinned(), SETTINGS], sort_keys=True).encode()).hexdigest()


def closure(path: str) -> set[Path]:
    """The contract's own source and every one of ours that it imports, however far away."""
    file = CONTRACTS / path
    found, todo = {file}, [file]
    while todo:
        here = todo.pop()
        for name in _LOCAL_IMPORT.findall(here.read_text()):
            other = (here.parent / name).resolve()
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def compile_sources(paths: list[str], changed: dict[str, str] | None = None) -> dict[str, Any]:
    """solc's standard JSON output for `paths` below contracts/; `changed` gives other texts for some files.

    Exits with the compiler's words on an error or, where nothing is changed, on a warning.
    """
    sources = {path: {"content": (CONTRACTS / path).read_text()} for path in paths}
    sources |= {path: {"content": text} for path, text in (changed or {}).items()}
    selection = {"*": {"*": list(OUTPUTS)}}
    request = {"language": "Solidity", "sources": sources, "settings": {**SETTINGS, "outputSelection": selection}}
    solc = ["node", str(CONTRACTS / "tools/solc.cjs")]
    done = subprocess.run(solc, input=json.dumps(request), capture_output=True, text=True, check=False, cwd=CONTRACTS)
    if done.returncode != 0:
        sys.exit(f"The compiler did not start: {done.stderr.strip()[-800:]}\nRun `npm ci` in contracts/ first.")
    output: dict[str, Any] = json.loads(done.stdout)
    mild = ("info", "warning") if changed else ("info",)
    complaints = [e for e in output.get("errors", []) if e["severity"] not in mild]
    if complaints:
        sys.exit("\n".join(e["formattedMessage"] for e in complaints))
    return output


def _without_ast_ids(layout: dict[str, Any]) -> Any:
    """The compiler numbers nodes over all sources; with the numbers in it, an artifact would change with any other contract."""
    text = re.sub(r"\)\d+(?=[_,)\"])", ")", json.dumps(layout))
    return json.loads(text, object_hook=lambda item: {k: v for k, v in item.items() if k != "astId"})


def _immutables(references: dict[str, list[dict[str, int]]]) -> list[list[int]]:
    """[first byte, length] of each place, without the number of the variable, for the same reason."""
    return sorted([place["start"], place["length"]] for places in references.values() for place in places)


def creation_code(name: str, changed: dict[str, str]) -> bytes:
    """Creation code of `name` with other texts for some sources; writes nothing."""
    path = PRODUCTS[name]
    output = compile_sources([path], changed)
    return bytes.fromhex(output["contracts"][path][name]["evm"]["bytecode"]["object"])


def build() -> dict[str, str]:
    """Artifact texts by contract name."""
    every = {**PRODUCTS, **TEST_PRODUCTS}
    output = compile_sources(list(every.values()))
    return {name: _artifact(output["contracts"][path][name], path) for name, path in every.items()}


def _file(name: str) -> Path:
    return (ARTIFACTS if name in PRODUCTS else TEST_ARTIFACTS) / f"{name}.json"


def _artifact(contract: dict[str, Any], path: str) -> str:
    artifact = {
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
        "immutables": _immutables(contract["evm"]["deployedBytecode"]["immutableReferences"]),
        "storageLayout": _without_ast_ids(contract["storageLayout"]),
        "solcVersion": pinned()["solc"],
        "sourceHash": source_hash(path),
    }
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def stale(rebuilt: dict[str, str] | None) -> list[str]:
    """What is not current, in words; `rebuilt` is None where there is no compiler."""
    found = []
    for name, path in {**PRODUCTS, **TEST_PRODUCTS}.items():
        file = _file(name)
        if not file.exists():
            found.append(f"{name}: no artifact")
        elif json.loads(file.read_text())["sourceHash"] != source_hash(path):
            found.append(f"{name}: the sources have changed since the artifact was built")
        elif rebuilt is not None and file.read_text() != rebuilt[name]:
            found.append(f"{name}: a rebuild differs from the artifact")
    found += [f"{file.name}: of no contract" for file in ARTIFACTS.glob("*.json") if file.stem not in PRODUCTS]
    if not found:
        found = [
            f"{file.name}: differs from what the artifacts generate"
            for file, text in _generated().items()
            if not file.exists() or file.read_text() != text
        ]
    return found


def _generated() -> dict[Path, str]:
    abis = {name: json.loads(_file(name).read_text())["abi"] for name in PRODUCTS}
    sources = {name: [CONTRACTS / path, *sorted(closure(path))] for name, path in PRODUCTS.items()}
    return {BINDINGS: bindings.generate(abis), REFERENCE: reference_page.generate(abis, sources)}


def standard_json(path: str) -> str:
    """The compiler's input for one contract, with every source that it needs in it: what an explorer compiles again."""
    sources, todo = dict[str, str](), [path]
    while todo:
        name = todo.pop()
        file = CONTRACTS / name if (CONTRACTS / name).exists() else CONTRACTS / "node_modules" / name
        sources[name] = file.read_text()
        for found in _IMPORT.findall(sources[name]):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(name), found)) if found[0] == "." else found
            if other not in sources:
                todo.append(other)
    selection = {"*": {"*": list(OUTPUTS)}}
    content = {name: {"content": text} for name, text in sorted(sources.items())}
    request = {"language": "Solidity", "sources": content, "settings": {**SETTINGS, "outputSelection": selection}}
    return json.dumps(request, indent=1) + "\n"


def write_standard_json(folder: Path) -> None:
    """One file for each contract of the package."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in PRODUCTS.items():
        (folder / f"{name}.json").write_text(standard_json(path))
        print(folder / f"{name}.json")


def main() -> None:
    """Parse, then build or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where something is stale")
    parser.add_argument(
        "--sources", action="store_true", help="with --check: compare source hashes only, compile nothing"
    )
    parser.add_argument("--standard-json", type=Path, metavar="DIR", help="write what explorers verify contracts with")
    arguments = parser.parse_args()
    compiler = (CONTRACTS / "node_modules/solc").exists() and not arguments.sources
    if arguments.standard_json:
        write_standard_json(arguments.standard_json)
        return
    if arguments.check:
        found = stale(build() if compiler else None)
        if found:
            sys.exit("Stale, run contracts/tools/build.py:\n  " + "\n  ".join(found))
        print("Artifacts and bindings are current" + ("" if compiler else " (by source hash, not compiled)"))
        return
    for name, text in build().items():
        _file(name).parent.mkdir(parents=True, exist_ok=True)
        _file(name).write_text(text)
        print(f"{name}: {(len(json.loads(text)['deployedBytecode']) - 2) // 2} bytes")
    for file, text in _generated().items():
        file.write_text(text)


if __name__ == "__main__":
    main()
