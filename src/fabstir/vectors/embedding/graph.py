"""all-MiniLM-L6-v2 as an ONNX graph: BERT of six layers, the mean over what is not padding, length one.

Written from the tensors themselves, so that what runs follows from the weights' hash and from this file, and nobody's export has to be
trusted. Inputs `input_ids` and `attention_mask`, each (texts, tokens); output `embedding`. Positions are a slice of their table: a
range with a gather trips onnxruntime's fusion. Specification: arXiv 1810.04805; sizes from the model's `config.json`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fabstir.vectors.embedding.weights import Tensors
from fabstir.vectors.native import library

LAYERS: Final = 6
HEADS: Final = 12
WIDTH: Final = 384
HEAD_WIDTH: Final = WIDTH // HEADS
EPSILON: Final = 1e-12
MASKED: Final = -1e9
OPSET: Final = 20
IR_VERSION: Final = 9


def build(tensors: Tensors) -> bytes:
    """The serialised model."""
    return _Graph(tensors).model()


class _Graph:
    """Nodes and constants, in the order in which they are asked for."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._helper = library("onnx.helper")
        self._arrays = library("onnx.numpy_helper")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def model(self) -> bytes:
        types = library("onnx").TensorProto
        output = self._pooled(self._encoded())
        self._nodes.append(self._helper.make_node("LpNormalization", [output], ["embedding"], axis=-1, p=2))
        shape = ["texts", "tokens"]
        inputs = [
            self._helper.make_tensor_value_info(name, types.INT64, shape) for name in ("input_ids", "attention_mask")
        ]
        outputs = [self._helper.make_tensor_value_info("embedding", types.FLOAT, ["texts", WIDTH])]
        graph = self._helper.make_graph(self._nodes, "all-MiniLM-L6-v2", inputs, outputs, [*self._constants.values()])
        opset = self._helper.make_opsetid("", OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    def _encoded(self) -> str:
        hidden = self._embedded()
        bias = self._bias()
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            attended = self._linear(self._attention(hidden, bias, at), f"{at}.attention.output.dense")
            hidden = self._normed(self._node("Add", attended, hidden), f"{at}.attention.output.LayerNorm")
            wide = self._node("Gelu", self._linear(hidden, f"{at}.intermediate.dense"))
            hidden = self._normed(
                self._node("Add", self._linear(wide, f"{at}.output.dense"), hidden), f"{at}.output.LayerNorm"
            )
        return hidden

    def _embedded(self) -> str:
        words = self._node("Gather", self._tensor("embeddings.word_embeddings.weight"), "input_ids")
        table = self._tensors["embeddings.position_embeddings.weight"]
        table = table + self._tensors["embeddings.token_type_embeddings.weight"][0]
        length = self._node("Shape", "input_ids", start=1, end=2)
        positions = self._node(
            "Slice", self._constant("positions", table), self._ints("zero", 0), length, self._ints("rows", 0)
        )
        return self._normed(self._node("Add", words, positions), "embeddings.LayerNorm")

    def _bias(self) -> str:
        """Zero where there is a token, hardly any attention where there is padding."""
        unmasked = self._node("Cast", "attention_mask", to=library("onnx").TensorProto.FLOAT)
        absent = self._node(
            "Sub", self._float("one", 1.0), self._node("Unsqueeze", unmasked, self._ints("heads", 1, 2))
        )
        return self._node("Mul", absent, self._float("masked", MASKED))

    def _attention(self, hidden: str, bias: str, at: str) -> str:
        split = self._ints("split", 0, 0, HEADS, HEAD_WIDTH)
        parts = {}
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            projected = self._linear(hidden, f"{at}.attention.self.{name}")
            parts[name] = self._node("Transpose", self._node("Reshape", projected, split), perm=order)
        scaled = self._node(
            "Mul", self._node("MatMul", parts["query"], parts["key"]), self._float("scale", HEAD_WIDTH**-0.5)
        )
        weights = self._node("Softmax", self._node("Add", scaled, bias), axis=-1)
        context = self._node("Transpose", self._node("MatMul", weights, parts["value"]), perm=[0, 2, 1, 3])
        return self._node("Reshape", context, self._ints("join", 0, 0, WIDTH))

    def _pooled(self, hidden: str) -> str:
        present = self._node("Cast", "attention_mask", to=library("onnx").TensorProto.FLOAT)
        weighted = self._node("Mul", hidden, self._node("Unsqueeze", present, self._ints("last", 2)))
        total = self._node("ReduceSum", weighted, self._ints("tokens", 1), keepdims=0)
        count = self._node("ReduceSum", present, self._ints("tokens", 1), keepdims=1)
        return self._node("Div", total, count)

    def _linear(self, hidden: str, at: str) -> str:
        weight = self._constant(f"{at}.weight.T", self._tensors[f"{at}.weight"].T)
        return self._node("Add", self._node("MatMul", hidden, weight), self._tensor(f"{at}.bias"))

    def _normed(self, hidden: str, at: str) -> str:
        scale, shift = self._tensor(f"{at}.weight"), self._tensor(f"{at}.bias")
        return self._node("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=EPSILON)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _tensor(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def _ints(self, name: str, *values: int) -> str:
        return self._constant(name, np.asarray(values, np.int64))

    def _float(self, name: str, value: float) -> str:
        return self._constant(name, np.asarray(value, np.float32))

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = self._arrays.from_array(np.ascontiguousarray(value), name)
        return name
