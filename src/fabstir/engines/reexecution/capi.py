"""llama.cpp's C API through ctypes, with the symbols that the pinned xllamacpp wheel exports: no second build of the
same code.

The layout of its structs belongs to the build. What is declared here is that of b11549; `library` compares every field
that has a known default with what the library itself fills in, and refuses anything else with
`reexecution_unsupported`, since a wrong layout would be read and written silently. Loads the library, holds no state of
its own. Only ever in a process of its own: a damaged file may abort it.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Final

from fabstir.domain.errors import error

POOLING_NONE: Final = 0
_U32, _I32, _INT, _FLOAT, _BOOL, _P = (
    ctypes.c_uint32,
    ctypes.c_int32,
    ctypes.c_int,
    ctypes.c_float,
    ctypes.c_bool,
    ctypes.c_void_p,
)
FLOATS: Final = ctypes.POINTER(ctypes.c_float)
INTS: Final = ctypes.POINTER(ctypes.c_int32)


class ModelParams(ctypes.Structure):
    """llama_model_params."""

    _fields_ = (
        ("devices", _P), ("tensor_buft_overrides", _P), ("n_gpu_layers", _I32), ("split_mode", _INT), ("load_mode", _INT),
        ("lazy_mode", _INT), ("main_gpu", _I32), ("tensor_split", _P), ("progress_callback", _P), ("progress_user_data", _P),
        ("kv_overrides", _P), ("vocab_only", _BOOL), ("check_tensors", _BOOL), ("use_extra_bufts", _BOOL), ("no_host", _BOOL),
        ("no_alloc", _BOOL), ("load_mtp", _BOOL),
    )  # fmt: skip


class ContextParams(ctypes.Structure):
    """llama_context_params, with room behind it: it is returned by value, and a longer one must not overwrite anything."""

    _fields_ = (
        *((name, _U32) for name in (
            "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max", "n_outputs_max_per_seq")),
        ("n_threads", _I32), ("n_threads_batch", _I32),
        *((name, _INT) for name in (
            "ctx_type", "rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type")),
        *((name, _FLOAT) for name in (
            "rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", _U32), ("defrag_thold", _FLOAT), ("cb_eval", _P), ("cb_eval_user_data", _P),
        ("type_k", _INT), ("type_v", _INT), ("abort_callback", _P), ("abort_callback_data", _P), ("unnamed", _P),
        *((name, _BOOL) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")),
        ("samplers", _P), ("n_samplers", ctypes.c_size_t), ("ctx_other", _P), ("room", ctypes.c_uint8 * 128),
    )  # fmt: skip


class Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = (
        ("n_tokens", _I32), ("token", INTS), ("embd", _P), ("pos", INTS), ("n_seq_id", INTS),
        ("seq_id", ctypes.POINTER(INTS)), ("logits", ctypes.POINTER(ctypes.c_int8)),
    )  # fmt: skip


LogCallback: Final = ctypes.CFUNCTYPE(None, _INT, ctypes.c_char_p, _P)

FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "llama_backend_init": (None,),
    "llama_log_set": (None, LogCallback, _P),
    "llama_model_default_params": (ModelParams,),
    "llama_context_default_params": (ContextParams,),
    "llama_model_load_from_file": (_P, ctypes.c_char_p, ModelParams),
    "llama_init_from_model": (_P, _P, ContextParams),
    "llama_free": (None, _P),
    "llama_model_get_vocab": (_P, _P),
    "llama_model_n_embd": (_I32, _P),
    "llama_model_n_ctx_train": (_I32, _P),
    "llama_model_desc": (_I32, _P, ctypes.c_char_p, ctypes.c_size_t),
    "llama_vocab_n_tokens": (_I32, _P),
    "llama_vocab_is_eog": (_BOOL, _P, _I32),
    "llama_token_to_piece": (_I32, _P, _I32, ctypes.c_char_p, _I32, _I32, _BOOL),
    "llama_batch_init": (Batch, _I32, _I32, _I32),
    "llama_decode": (_I32, _P, Batch),
    "llama_get_logits_ith": (FLOATS, _P, _I32),
    "llama_get_embeddings_ith": (FLOATS, _P, _I32),
    "llama_set_embeddings": (None, _P, _BOOL),
    "llama_get_memory": (_P, _P),
    "llama_memory_clear": (None, _P, _BOOL),
}
"""Name: result, arguments."""

KNOWN_MODEL: Final = {
    "main_gpu": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_alloc": False,
}
KNOWN_CONTEXT: Final = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "ctx_type": 0, "rope_scaling_type": -1, "pooling_type": -1,
    "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0, "yarn_ext_factor": -1.0,
    "yarn_orig_ctx": 0, "cb_eval": None, "cb_eval_user_data": None, "type_k": 1, "type_v": 1, "abort_callback": None,
    "abort_callback_data": None, "embeddings": False, "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True,
    "kv_unified": False, "samplers": None, "n_samplers": 0,
}  # fmt: skip
"""Defaults of b11549, by field."""


def library_path() -> Path:
    """The wheel's shared library. Raises LocalFault (`reexecution_unsupported`)."""
    found = importlib.util.find_spec("xllamacpp")
    path = Path(found.origin).with_name("xllamacpp.abi3.so") if found and found.origin else None
    if path is None or not path.exists():
        raise error("reexecution_unsupported", "the wheel xllamacpp is not installed, or has no xllamacpp.abi3.so")
    return path


@cache
def library() -> Any:
    """The library with its functions declared and its layouts checked. Raises LocalFault (`reexecution_unsupported`)."""
    try:
        loaded = ctypes.CDLL(str(library_path()))
        for name, (result, *arguments) in FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as fault:
        raise error("reexecution_unsupported", str(fault)) from fault
    require_layout("llama_model_params", loaded.llama_model_default_params(), KNOWN_MODEL)
    require_layout("llama_context_params", loaded.llama_context_default_params(), KNOWN_CONTEXT)
    return loaded


def require_layout(name: str, defaults: ctypes.Structure, known: dict[str, Any]) -> None:
    """Refuse a struct whose fields are not where they should be. Raises LocalFault (`reexecution_unsupported`)."""
    other = {field: getattr(defaults, field) for field, value in known.items() if getattr(defaults, field) != value}
    if other:
        raise error("reexecution_unsupported", f"another layout of {name}: {other}")
