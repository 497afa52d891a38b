"""`fabstir verify`: whether a host served what it was paid for, as far as its own records can show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from fabstir.cli.frame import COMMON, Common
from fabstir.domain.ids import to_hex

if TYPE_CHECKING:
    from fabstir.bootstrap.verification import SessionReport
    from fabstir.protocol.audit import Gate, Power, Tolerance

app = App(name="verify", help="Whether a host served what it was paid for.", group_commands="Commands")
app.command("fabstir.cli.verify_attestation:attestation", name="attestation")

ACCUSED: Final = 3
"""Exit code of a verdict `inconsistent`."""
UNDECIDED: Final = 4
"""Exit code where there is not enough evidence."""
ASKS: Final = {
    "probability": "claimed against recomputed log-probability of the tokens, nats",
    "alternatives": "the same for the most likely tokens that the records name, nats",
    "support": "tokens that the claimed sampler could not have drawn",
    "surprise": "how unlikely the tokens were for draws of the claimed sampler, nats",
    "fingerprint": "distance of the activations, 0 to 1",
}

Model = Annotated[Path, Parameter(help="The weights, a GGUF file.")]
Threads = Annotated[int | None, Parameter(validator=Number(gte=1), help="Threads. Default: half of the CPUs.")]
Layers = Annotated[int, Parameter(validator=Number(gte=-1), help="Layers on the GPU; -1 for all.")]


@app.command
def session(
    file: Path,
    /,
    *,
    model: Model,
    tolerance: Annotated[
        Path | None, Parameter(help="From `fabstir verify calibrate`. Not needed for the model that ships.")
    ] = None,
    repository: Annotated[str | None, Parameter(help="Of the model, as it is registered.")] = None,
    file_name: Annotated[
        str | None, Parameter(help="As it is registered, where the file has another name here.")
    ] = None,
    threads: Threads = None,
    gpu_layers: Layers = 0,
    common: Common = COMMON,
) -> int:
    """Run the answers of a session transcript through the weights once more, and compare with what the host claimed.

    Exit code 0: consistent. 3: inconsistent. 4: not enough evidence. 1: the file, its signatures or the weights are not what they
    should be. What each means: docs/how-to/verify.md.
    """
    from fabstir.bootstrap.verification import Weights, verify_session
    from fabstir.cli.running import run

    weights = Weights(path=model, repository=repository, file=file_name)
    report = run(verify_session(file, weights, tolerance, threads=threads, gpu_layers=gpu_layers))
    common.show(_report_data(report), lambda: "\n".join(_report_lines(report)))
    return {"consistent": 0, "inconsistent": ACCUSED}.get(report.verdict.outcome, UNDECIDED)


@app.command
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
    from fabstir.engines.reexecution.tolerances import write_tolerance

    made = run(measure(model, answers, rival, threads=threads, gpu_layers=gpu_layers))
    place = output or Path(f"{model.stem}.tolerance.json")
    write_tolerance(place, made)
    common.show({"file": str(place), "tolerance": made}, lambda: "\n".join([f"Wrote {place}", *_tolerance_lines(made)]))


def _report_data(report: SessionReport) -> dict[str, Any]:
    verdict, tolerance = report.verdict, report.tolerance
    return {
        "outcome": verdict.outcome,
        "tokens": verdict.tokens,
        "tokens_needed": verdict.needed,
        "answers": [
            {
                "tokens": len(answer.tokens),
                "mean_difference": sum(token.difference for token in answer.tokens) / len(answer.tokens),
                "largest_difference": max(token.difference for token in answer.tokens),
                "outside": sum(token.shortfall > tolerance.margin for token in answer.tokens),
                "argmax": sum(token.is_best for token in answer.tokens),
                "findings": answer.findings,
            }
            for answer in report.evidence
        ],
        "questions": [_gate_data(gate) for gate in verdict.gates],
        "findings": verdict.findings,
        "argmax_share": verdict.best,
        "false_positive_rate": verdict.false_positive_rate,
        "honest_trials": _power_data(tolerance.honest),
        "rival": tolerance.rival.name if tolerance.rival else None,
        "rival_trials": _power_data(verdict.miss),
        "calibration": {
            "tokens": tolerance.probability.count,
            "answers": tolerance.probability.answers,
            "built_with": tolerance.built_with,
        },
        "signed": report.receipt is not None,
        "job": to_hex(report.receipt.job) if report.receipt else None,
        "tokens_signed": report.receipt.tokens if report.receipt else 0,
        "weights": report.weights.hex(),
        "cpu_seconds": round(report.cpu_seconds, 3),
    }


def _gate_data(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name,
        "value": gate.value,
        "threshold": gate.threshold,
        "count": gate.count,
        "passed": gate.passed,
    }


def _power_data(power: Power | None) -> dict[str, int] | None:
    return None if power is None else {"tokens": power.tokens, "accused": power.caught, "of": power.windows}


def _report_lines(report: SessionReport) -> list[str]:
    verdict, tolerance = report.verdict, report.tolerance
    lines = [f"{verdict.outcome.upper()}: {verdict.tokens} tokens in {verdict.answers} answers, {report.description}"]
    lines += [f"  wrong: {finding}" for finding in verdict.findings]
    for gate in verdict.gates:
        mark = "ok    " if gate.passed else "WRONG "
        lines.append(f"  {mark} {gate.name:12} {gate.value:<10.4g} at most {gate.threshold:<10.4g} {ASKS[gate.name]}")
    lines.append(f"  {verdict.best:.1%} of the tokens are the most likely one")
    if verdict.outcome == "not enough evidence":
        needed = (
            f"at least {verdict.needed} tokens" if verdict.needed else "a tolerance under which the rival is caught"
        )
        lines.append(f"  Nothing contradicts the host, and too little was said: it takes {needed}.")
    lines += [
        f"An honest host is accused at most once in {1 / verdict.false_positive_rate:,.0f} verdicts, if its arithmetic is like that of the",
        f"calibration ({tolerance.probability.count} tokens; {tolerance.built_with}).",
        *_honest_lines(tolerance),
    ]
    if verdict.miss is not None and tolerance.rival is not None:
        power = verdict.miss
        lines.append(
            f"{tolerance.rival.name} in its place was caught in {power.caught} of {power.windows} trials with {power.tokens} tokens."
        )
    if report.receipt is None:
        lines.append("Nothing in this file was signed by the host: the verdict is about the file.")
    else:
        signed = report.receipt
        lines.append(
            f"The host signed {signed.tokens} of these tokens ({signed.tokens_unsigned} not), job {to_hex(signed.job)}."
        )
    return lines


def _honest_lines(tolerance: Tolerance) -> list[str]:
    tried = tolerance.honest
    if tried is None:
        return []
    return [
        f"Tried on honest answers: {tried.caught} of {tried.windows} windows of {tried.tokens} tokens were accused."
    ]


def _tolerance_lines(tolerance: Tolerance) -> list[str]:
    lines = [
        f"  {tolerance.quantisation}, {tolerance.probability.count} tokens in {tolerance.probability.answers} answers",
        f"  probability: mean difference {tolerance.probability.mean:.2e} nats, cut at {tolerance.probability.bound:.2e}",
    ]
    if tolerance.alternatives is not None:
        lines.append(
            f"  alternatives: {tolerance.alternatives.mean:.2e} nats, cut at {tolerance.alternatives.bound:.2e}"
        )
    lines += [f"  {line}" for line in _honest_lines(tolerance)]
    if tolerance.rival is not None:
        tried = ", ".join(f"{power.tokens}: {power.caught / power.windows:.1%}" for power in tolerance.rival.power)
        lines.append(f"  {tolerance.rival.name} caught, by number of tokens: {tried}")
    lines.append(f"  A session needs {tolerance.needed or 'more'} tokens for a verdict.")
    return lines
