"""How a verdict and a tolerance are shown: as one JSON object, and as lines for people, every number beside its threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fabstir.domain.ids import to_hex

if TYPE_CHECKING:
    from fabstir.bootstrap.verification import SessionReport
    from fabstir.protocol.audit import Gate, Power, Tolerance

ASKS: Final = {
    "probability": "claimed against recomputed log-probability of the tokens, nats",
    "alternatives": "the same for the most likely tokens that the records name, nats",
    "support": "tokens that the claimed sampler could not have drawn",
    "surprise": "how unlikely the tokens were for draws of the claimed sampler, nats",
    "fingerprint": "distance of the activations, 0 to 1",
}


def report_data(report: SessionReport) -> dict[str, Any]:
    """Everything, as a program reads it."""
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


def report_lines(report: SessionReport) -> list[str]:
    """Outcome first, then what it rests on, then how often it is wrong."""
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


def tolerance_lines(tolerance: Tolerance) -> list[str]:
    """What a calibration found."""
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
