"""The graphs of the circuits and what each is built with: rows, columns, names. Read by tools/build_circuit.py alone.

Hand-made ONNX with integers as floats (scale 0), identity, sums and products only: nothing that ezkl would turn into a lookup
or a decomposition. What the circuits mean: docs/explanation/proofs.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

CONTEXT: Final = 4
"""Public words: statement high and low half, seed high and low half."""
RECORDS: Final = 256
"""Records of one checkpoint (`fabstir.ports.prover.CHECKPOINT_TOKENS`)."""
SPOT_ROWS: Final = 4
"""Rows of the output head (`fabstir.protocol.spot.ROWS`)."""
SPOT_WIDTH: Final = 897
"""Columns of a row and one for the salt of the hidden state (`fabstir.protocol.spot.VECTOR`)."""


class Recipe(NamedTuple):
    """What one circuit is made from."""

    name: str
    contract: str
    """Name of the generated verifier."""
    logrows: int
    columns: int
    """Inner columns, 0: what ezkl takes by itself."""
    inputs: tuple[int, ...]
    """Elements of each input tensor, in their order."""
    ceremony_sha256: str
    """The perpetual-powers-of-tau SRS for 2^logrows rows, as ezkl 23.0.5 pins it (its src/srs_sha.rs)."""
    graph: Callable[[], Any]

    @property
    def onnx_file(self) -> str:
        """`bind.onnx`."""
        return f"{self.name}.onnx"

    @property
    def contract_file(self) -> str:
        """`Halo2BindVerifier.sol`."""
        return f"{self.contract}.sol"

    @property
    def files(self) -> tuple[str, ...]:
        """All that the folder holds beside the manifest. ezkl orders the bytes of a larger compiled circuit as it happens, so that one
        is compiled where it is used."""
        compiled = () if self.columns else ("circuit.ezkl",)
        return (self.onnx_file, "settings.json", *compiled, "vk.key", "kzg.srs")

    def write_graph(self, path: Path) -> None:
        """The ONNX file."""
        model = helper.make_model(self.graph(), opset_imports=[helper.make_opsetid("", 15)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def _tensor(name: str, *shape: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def bind_graph() -> Any:
    """ctx -> ctx_out (public), sum(records) -> sum (public): the whole circuit."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["ctx"], ["ctx_out"]),
            helper.make_node("ReduceSum", ["records", "axis"], ["sum"], keepdims=1),
        ],
        "bind",
        [_tensor("ctx", 1, CONTEXT), _tensor("records", 1, RECORDS)],
        [_tensor("ctx_out", 1, CONTEXT), _tensor("sum", 1, 1)],
        [numpy_helper.from_array(numpy.array([1], numpy.int64), "axis")],
    )


def spot_graph() -> Any:
    """ctx -> ctx_out (public), <w_j, x> for each row -> dots (public). One tensor a row: each gets a KZG point of its own."""
    rows = range(SPOT_ROWS)
    return helper.make_graph(
        [
            helper.make_node("Identity", ["ctx"], ["ctx_out"]),
            *(helper.make_node("MatMul", [f"w{j}", "x"], [f"dot{j}"]) for j in rows),
            helper.make_node("Concat", [f"dot{j}" for j in rows], ["dots"], axis=0),
        ],
        "spot",
        [
            _tensor("ctx", 1, CONTEXT),
            _tensor("x", SPOT_WIDTH, 1),
            *(_tensor(f"w{j}", 1, SPOT_WIDTH) for j in rows),
        ],
        [_tensor("ctx_out", 1, CONTEXT), _tensor("dots", SPOT_ROWS, 1)],
    )


CIRCUITS: Final = {
    "bind": Recipe(
        name="bind",
        contract="Halo2BindVerifier",
        logrows=9,  # 256 records, the sum and ezkl's blinding rows
        columns=0,
        inputs=(CONTEXT, RECORDS),
        ceremony_sha256="493d088951882ad81af11e08c791a38a37c0ffff14578cf2c7fb9b7bca654d8b",
        graph=bind_graph,
    ),
    "spot": Recipe(
        name="spot",
        contract="Halo2SpotVerifier",
        logrows=11,  # 4 rows of 897 products each in 4 columns: 2,027 rows
        columns=4,  # measured: 2 need 2^12 rows and 1.2 CPU-s, 4 need 0.98 CPU-s, 8 need 2.1 CPU-s
        inputs=(CONTEXT, SPOT_WIDTH, *[SPOT_WIDTH] * SPOT_ROWS),
        ceremony_sha256="257fa566ed9bc0767d3e63e92b5e966829fa3347d320a32055dc31ee7d33f8a4",
        graph=spot_graph,
    ),
}
