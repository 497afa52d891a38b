"""The child process of `LlamaEngine`: llama.cpp's server from the xllamacpp wheel, or a llama-server program that takes
this process over.

    python -m fabstir.engines.llama_worker SETTINGS       SETTINGS: one JSON object (WorkerSettings); the API key is in LLAMA_API_KEY

It ends when its parent ends (PR_SET_PDEATHSIG, and the closed stdin where there is none), leaves no core file, and
prints nothing while it serves, so that no conversation can reach a log: verbosity is 0, and only where a model cannot
be loaded it loads again aloud to say why.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from fabstir.ports.private_process import end_with_parent

KEY_VARIABLE: Final = "LLAMA_API_KEY"
"""Of llama-server's own choosing."""
CPU_BATCH: Final = 128
"""Tokens of prompt in one step without a GPU. A cancel and everybody else's next token wait for a step: 0.1 s instead of 1.6 s at 512, for
14 % of prefill speed (190 M parameters, 2 threads)."""

LAST_WORDS_SECONDS: Final = 10
"""After a failed start, until the kernel ends what will not end by itself."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent decides."""

    parent: int
    model: str
    socket: str
    context_size: int
    parallel: int
    threads: int
    gpu_layers: int
    binary: str = ""
    spill: str = ""
    """Folder in memory for what was computed for sessions that lost their slot; "": nothing is set aside."""
    adapters: tuple[str, ...] = ()
    """Files of LoRA adapters; none is applied until a request says so."""


def main() -> None:
    """Run until the parent ends."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    end_with_parent(settings.parent)
    os.umask(0o077)
    if settings.binary:
        os.execv(settings.binary, [settings.binary, *server_arguments(settings)])  # noqa: S606  the program that the operator named
    try:
        _kept = _serve(settings, verbosity=0)
    except RuntimeError:
        with contextlib.suppress(RuntimeError):
            _serve(settings, verbosity=1)
        signal.alarm(LAST_WORDS_SECONDS)  # native destructors may wait for ever
        sys.exit(1)  # in order, so that the engine's log thread writes what it has
    sys.stdin.read()
    os._exit(0)  # never through the server's destructor, which may wait for ever


def _serve(settings: WorkerSettings, verbosity: int) -> Any:
    import xllamacpp  # noqa: PLC0415  a 100 MB library; not needed where another program serves

    params = xllamacpp.CommonParams()
    params.model.path = settings.model
    params.verbosity = verbosity
    params.n_gpu_layers = settings.gpu_layers
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.n_parallel = settings.parallel
    # Each slot has its own room: a shared one that overflows fails every active request.
    params.n_ctx = 0
    params.kv_unified = True
    params.kv_unified_per_slot = settings.context_size
    if settings.gpu_layers == 0:
        params.n_batch = params.n_ubatch = CPU_BATCH
    params.hostnames = [settings.socket]
    params.api_keys = [os.environ[KEY_VARIABLE]]
    params.endpoint_slots = True
    # Each request names its slot: one renter must not find out by the time that it takes what another one said (`slots`).
    params.slot_prompt_similarity = 0.0
    params.cache_ram_mib = 0
    if settings.spill:
        params.slot_save_path = settings.spill + "/"
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in settings.adapters]
    params.ui = False
    Path(settings.socket).unlink(missing_ok=True)
    return xllamacpp.Server(params)


def server_arguments(settings: WorkerSettings) -> list[str]:
    """The same decisions as command-line options of llama-server."""
    return [
        *("--model", settings.model),
        *("--host", settings.socket),
        *("--threads", str(settings.threads)),
        *(argument for path in settings.adapters for argument in ("--lora", path)),
        *("--gpu-layers", str(settings.gpu_layers) if settings.gpu_layers >= 0 else "999"),
        *("--parallel", str(settings.parallel)),
        *("--ctx-size", str(settings.context_size * settings.parallel), "--no-kv-unified"),
        *(("--batch-size", str(CPU_BATCH), "--ubatch-size", str(CPU_BATCH)) if settings.gpu_layers == 0 else ()),
        # Errors only: why a model does not load. What it prints later is thrown away (ChildProcess.forget_when_ready).
        *("--slot-prompt-similarity", "0", "--cache-ram", "0"),
        *(("--slot-save-path", settings.spill + "/") if settings.spill else ()),
        *("--verbosity", "1", "--slots", "--no-ui"),
    ]


if __name__ == "__main__":
    main()
