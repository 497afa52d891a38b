"""`binary=`: another program serves, under the same supervision and with the same decisions.

The program is a stand-in for llama-server's command line only: it reads the options that we pass and runs the wheel's server with them.
(A native build of llama-server v0.5.0 was run by hand with the same results.)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from tests.engines.asking import ask, collect

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.llama_worker import CPU_BATCH, WorkerSettings, server_arguments
from fabstir.engines.model_file import default_model

PROGRAM = """#!{python}
import os, sys, xllamacpp
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
params = xllamacpp.CommonParams()
params.model.path = given["--model"]
params.verbosity = 0
params.n_parallel = int(given["--parallel"])
params.n_ctx = int(sys.argv[sys.argv.index("--ctx-size") + 1])
params.kv_unified = "--no-kv-unified" not in sys.argv
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(given["--threads"])
params.hostnames = [given["--host"]]
params.api_keys = [os.environ["LLAMA_API_KEY"]]
params.endpoint_slots = "--slots" in sys.argv
server = xllamacpp.Server(params)
sys.stdin.read()
os._exit(0)
"""
SETTINGS = WorkerSettings(
    parent=1, model="m.gguf", socket="/s", context_size=512, parallel=3, threads=2, gpu_layers=0, binary="/llama-server"
)


def test_the_options_say_what_the_wheel_is_told() -> None:
    """A context of its own for each request, small steps without a GPU, nothing but errors printed."""
    line = " ".join(server_arguments(SETTINGS))
    assert "--ctx-size 1536 --no-kv-unified --batch-size" in line
    assert f"--ubatch-size {CPU_BATCH}" in line
    assert "--verbosity 1" in line
    assert "--gpu-layers 0" in line


@pytest.mark.real
async def test_another_program_serves(tmp_path: Path) -> None:
    """It replaces the worker in the same process, so that it dies with the parent, and answers like the wheel's server."""
    program = tmp_path / "llama-server"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    engine = LlamaEngine(default_model(), context_size=512, parallel=2, threads=1, binary=program)
    await engine.start()
    try:
        assert engine.info.context_size == 512
        assert str(program) in psutil.Process(engine.child.pid).cmdline()
        assert psutil.Process(engine.child.pid).ppid() == os.getpid()
        answer = await collect(engine, ask("What is the capital of Peru?"))
        assert answer.text == "The capital of Peru is Lima."
    finally:
        await engine.stop()
