#!/usr/bin/env python3
"""Makes every checked-in file of a circuit from scratch: ONNX, settings, compiled circuit, verification key, manifest, contract.

What goes in: this file, the pinned ezkl, the reference string (SRS) in the circuit's folder, and solc 0.8.20 from npm, which ezkl
insists on. What comes out is the same bytes each time, so `--check` says whether the checked-in files are what this file makes.

    tools/build_circuit.py                          build `bind` again from the checked-in SRS
    tools/build_circuit.py --circuit spot           the same for `spot`; all that follows goes with it too
    tools/build_circuit.py --check                  compare, change nothing
    tools/build_circuit.py --check --no-contract    the same without npm: all but the contract
    tools/build_circuit.py --new-development-srs    draw a new SRS: new keys, new circuit id, new contract
    tools/build_circuit.py --srs kzg9.srs --folder src/fabstir/proofs/circuits/bind-v1-ceremony --contract BuiltVerifier.sol

Nothing outside of a temporary folder and the named outputs is written. Needs the dev group (onnx), Node.js and npm; Linux.
The graphs themselves: tools/circuit_graphs.py. What the circuits mean: docs/explanation/proofs.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import ezkl

from circuit_graphs import CIRCUITS, Recipe

ROOT: Final = Path(__file__).resolve().parent.parent
CIRCUIT_FOLDERS: Final = ROOT / "src/fabstir/proofs/circuits"
CONTRACTS: Final = ROOT / "contracts/src/generated"

SOLC: Final = "0.8.20"
"""ezkl compiles the contract once to learn its ABI and accepts this version only."""
SOLJSON_SHA256: Final = "033dc42a16378dd036a475b8a7080af83cfae1841eb6848ce1667c56193972ba"

SOLC_WRAPPER: Final = """#!/usr/bin/env node
const solc = require(%s), fs = require('fs'), args = process.argv.slice(2);
if (args.includes('--version')) {
  const version = solc.version().replace(/\\.Emscripten\\.clang$/, '.Linux.g++');
  console.log('solc, the solidity compiler commandline interface\\nVersion: ' + version);
} else if (args.includes('--standard-json')) {
  const file = args.find(a => !a.startsWith('-') && fs.existsSync(a) && fs.statSync(a).isFile());
  fs.writeSync(1, solc.compile(fs.readFileSync(file || 0, 'utf8')));
} else process.exit(1);
"""


def main() -> int:
    """Build into a temporary folder, then compare or copy."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="build-circuit-") as temporary:
        work = Path(temporary)
        _isolate(work)
        recipe = CIRCUITS[options.circuit]
        _place_srs(options, work, recipe)
        _build(work, recipe)
        outputs = {work / file: options.folder / file for file in recipe.files}
        if options.contract_too:
            name = options.name or options.folder.name
            _write_contract(work, name, recipe)
            _write_manifest(work, name, recipe)
            outputs |= {
                work / "manifest.json": options.folder / "manifest.json",
                work / recipe.contract_file: options.contract,
            }
        _prove_once(work, recipe)
        return _compare(outputs) if options.check else _install(outputs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the checked-in files of a circuit.")
    parser.add_argument("--circuit", choices=sorted(CIRCUITS), default="bind", help="which one (default: bind)")
    parser.add_argument("--folder", type=Path, help="circuit folder (default: the packaged one)")
    parser.add_argument("--contract", type=Path, help="where the verifier contract goes")
    parser.add_argument("--name", help="name in the manifest (default: that of the folder)")
    parser.add_argument("--srs", type=Path, help="SRS of the ceremony for the circuit's rows; its SHA-256 is checked")
    parser.add_argument(
        "--new-development-srs", action="store_true", help="draw a new SRS, for development chains only"
    )
    parser.add_argument("--check", action="store_true", help="compare with what is checked in, change nothing")
    parser.add_argument(
        "--no-contract", dest="contract_too", action="store_false", help="with --check: leave out what needs npm"
    )
    options = parser.parse_args()
    options.folder = options.folder or CIRCUIT_FOLDERS / f"{options.circuit}-v1"
    options.contract = options.contract or CONTRACTS / CIRCUITS[options.circuit].contract_file
    if not options.contract_too and not options.check:
        parser.error("--no-contract goes with --check only: folder and contract belong together")
    return options


def _isolate(work: Path) -> None:
    """ezkl, svm and npm write to their homes: give them one that goes away."""
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "EZKL_REPO_PATH"):
        os.environ[variable] = str(work / "home")
    (work / "home").mkdir()


def _place_srs(options: argparse.Namespace, work: Path, recipe: Recipe) -> None:
    target = work / "kzg.srs"
    if options.new_development_srs:
        ezkl.gen_srs(str(target), recipe.logrows)
        return
    source = options.srs or options.folder / "kzg.srs"
    if not source.exists():
        sys.exit(f"{source} is missing: pass --srs FILE or --new-development-srs")
    shutil.copyfile(source, target)
    wanted = recipe.ceremony_sha256
    if options.srs and _sha256(target) != wanted:
        sys.exit(
            f"{source} is not the ceremony's SRS for 2^{recipe.logrows} rows: SHA-256 {_sha256(target)}, not {wanted}"
        )


def _build(work: Path, recipe: Recipe) -> None:
    recipe.write_graph(work / recipe.onnx_file)
    arguments = ezkl.PyRunArgs()
    arguments.input_visibility = "polycommit"  # each input tensor becomes one KZG point in the proof
    arguments.output_visibility = "public"
    arguments.param_visibility = "fixed"
    arguments.input_scale = arguments.param_scale = 0  # integers stay integers
    arguments.ignore_range_check_inputs_outputs = True  # any field element is a valid input
    arguments.logrows = recipe.logrows
    if recipe.columns:
        arguments.num_inner_cols = recipe.columns
        arguments.disable_freivalds = True  # every product in the circuit itself, no random shortcut
    network, settings, circuit = (str(work / name) for name in (recipe.onnx_file, "settings.json", "circuit.ezkl"))
    ezkl.gen_settings(network, settings, py_run_args=arguments)
    content = json.loads(Path(settings).read_text())
    del content["timestamp"]  # the one field that would differ in every build
    Path(settings).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    ezkl.compile_circuit(network, circuit, settings)
    ezkl.setup(circuit, str(work / "vk.key"), str(work / "pk.key"), str(work / "kzg.srs"))


def _write_contract(work: Path, name: str, recipe: Recipe) -> None:
    """ezkl's Solidity verifier, under our name and for our compiler."""
    _install_solc(work)

    async def generate() -> None:
        paths = [str(work / name) for name in ("vk.key", "settings.json", "generated.sol", "generated.abi", "kzg.srs")]
        await ezkl.create_evm_verifier(*paths, False)

    asyncio.run(generate())
    source = (work / "generated.sol").read_text()
    for old, new in (
        ("contract Halo2Verifier {", f"contract {recipe.contract} {{"),
        (
            "pragma solidity ^0.8.0;",
            f"// Made by tools/build_circuit.py from the verification key of circuit {name}. Not edited by hand.\npragma solidity 0.8.37;",
        ),
        (") public returns (bool) {", ") public view returns (bool) {"),
    ):
        if source.count(old) != 1:
            sys.exit(f"ezkl's verifier template changed: {old!r} occurs {source.count(old)} times")
        source = source.replace(old, new)
    (work / recipe.contract_file).write_text("\n".join(line.rstrip() for line in source.splitlines()) + "\n")


def _install_solc(work: Path) -> None:
    command = [
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(work),
        f"solc@{SOLC}",
    ]
    subprocess.run(command, check=True)
    package = work / "node_modules/solc"
    if _sha256(package / "soljson.js") != SOLJSON_SHA256:
        sys.exit(f"solc {SOLC} from npm is not the pinned one: SHA-256 {_sha256(package / 'soljson.js')}")
    program = work / "home/svm" / SOLC / f"solc-{SOLC}"  # where svm keeps compilers that it has
    program.parent.mkdir(parents=True)
    program.write_text(SOLC_WRAPPER % json.dumps(str(package)))
    program.chmod(0o755)


def _write_manifest(work: Path, name: str, recipe: Recipe) -> None:
    ceremony = _sha256(work / "kzg.srs") == recipe.ceremony_sha256
    manifest = {
        "name": name,
        "circuit_id": _sha256(work / "vk.key"),
        "ezkl": ezkl.__version__,
        "srs": "ceremony" if ceremony else "development",
        "files": {file: _sha256(work / file) for file in recipe.files},
        "proving_key": _sha256(work / "pk.key"),
        "contract": _sha256(work / recipe.contract_file),
    }
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _prove_once(work: Path, recipe: Recipe) -> None:
    """A build that cannot prove is not installed."""
    path = {name: str(work / name) for name in ("circuit.ezkl", "pk.key", "vk.key", "kzg.srs", "settings.json")}
    inputs, witness, proof = (str(work / name) for name in ("inputs.json", "witness.json", "proof.json"))
    words = [[n.to_bytes(32, "little").hex() for n in range(1, width + 1)] for width in recipe.inputs]
    Path(inputs).write_text(json.dumps({"input_data": words}))
    ezkl.gen_witness(inputs, path["circuit.ezkl"], witness)
    ezkl.prove(witness, path["circuit.ezkl"], path["pk.key"], proof, path["kzg.srs"])
    if not ezkl.verify(proof, path["settings.json"], path["vk.key"], path["kzg.srs"]):
        sys.exit("the proof of the new circuit does not verify")


def _compare(outputs: dict[Path, Path]) -> int:
    stale = [
        str(target)
        for built, target in outputs.items()
        if not target.exists() or target.read_bytes() != built.read_bytes()
    ]
    print("\n".join(f"stale: {target}" for target in stale) or "circuit files are current")
    return 1 if stale else 0


def _install(outputs: dict[Path, Path]) -> int:
    for built, target in outputs.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built, target)
        print(f"{_sha256(target)}  {target}")
    return 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
