"""`fabstir verify session` and `fabstir verify calibrate`: answers through the weights once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from fabstir.cli.frame import COMMON, Common

ACCUSED: Final = 3
"""Exit code of a verdict `inconsistent`."""
UNDECIDED: Final = 4
"""Exit code where there is not enough evidence."""

Model = Annotated[Path, Parameter(help="The weights, a GGUF file.")]
Threads = Annotated[int | None, Parameter(validator=Number(gte=1), help="Threads. Default: half of the CPUs.")]
Layers = Annotated[int, Parameter(validator=Number(gte=-1), help="Layers on the GPU; -1 for all.")]


def session(
    file: Annotated[Path, Parameter(help="What `fabstir receipt export --words` wrote.")],
    /,
    *,
    model: Model,
    tolerance: Annotated[
        Path | None, Parameter(help="From `fabstir verify calibrate`. Not needed for the model that ships.")
    ] = None,
    repository: Annotated[
        str, Parameter(help="Of the model, as it is registered; the file has its registered name.")
    ] = "",
    top_k: Annotated[
        int,
        Parameter(
            validator=Number(gte=0), help="Candidates of the host's sampler: 64 with llama.cpp, 0 (all) with vLLM."
        ),
    ] = 64,
    threads: Threads = None,
    gpu_layers: Layers = 0,
    common: Common = COMMON,
) -> int:
    """Run the answers of a session transcript through the weights once more, and compare with what the host claimed.

    Exit code 0: consistent. 3: inconsistent. 4: not enough evidence. 1: the file, its signatures or the weights are not what they
    should be. What each means: docs/how-to/verify.md.
    """
    from fabstir.bootstrap.verification import Weights, verify_session
    from fabstir.cli.files import read_file
    from fabstir.cli.running import run
    from fabstir.cli.verdict import report_data, report_lines

    weights = Weights(path=model, repository=repository)
    report = run(
        verify_session(read_file(file), weights, tolerance, top_k=top_k, threads=threads, gpu_layers=gpu_layers)
    )
    common.show(report_data(report), lambda: "\n".join(report_lines(report)))
    return {"consistent": 0, "inconsistent": ACCUSED}.get(report.verdict.outcome, UNDECIDED)


def calibrate(
    *,
    model: Model,
    output: Annotated[Path | None, Parameter(help="Default: MODEL.tolerance.json in this directory.")] = None,
    answers: Annotated[int, Parameter(validator=Number(gte=20), help="Honest answers to make.")] = 1000,
    rival: Annotated[
        Path | None,
        Parameter(help="Other weights that a cheat would serve in its place, to learn how many tokens find that out."),
    ] = None,
    threads: Threads = None,
    gpu_layers: Layers = 0,
    common: Common = COMMON,
) -> None:
    """Make the tolerance file of a model: answers of the own engine, run through the weights once more.

    The thresholds hold for hosts whose arithmetic differs no more than two runs on this machine do. More answers give tighter ones.
    """
    from fabstir.bootstrap.verification import calibrate as measure
    from fabstir.cli.running import run
    from fabstir.cli.verdict import tolerance_lines
    from fabstir.engines.reexecution.tolerances import write_tolerance

    made = run(measure(model, answers, rival, threads=threads, gpu_layers=gpu_layers))
    place = output or Path(f"{model.stem}.tolerance.json")
    write_tolerance(place, made)
    common.show({"file": str(place), "tolerance": made}, lambda: "\n".join([f"Wrote {place}", *tolerance_lines(made)]))
