"""`fabstir verify audit`: have a session checked by other hosts of the market, for money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import to_hex

if TYPE_CHECKING:
    from fabstir.renter.auditing import AuditReport

HOST_IS_WRONG = 3
UNDECIDED = 4


def audit(
    file: Annotated[Path, Parameter(help="What `fabstir receipt export --words` wrote.")],
    /,
    *,
    tolerance: Annotated[
        Path | None, Parameter(help="From `fabstir verify calibrate`. Not needed for the model that ships.")
    ] = None,
    budget: Annotated[int | None, Parameter(help="Base units that each verifier may cost.")] = None,
    evidence: Annotated[
        Path | None, Parameter(help="Write what the verifiers signed, for an arbiter or anybody else. Must not exist.")
    ] = None,
    common: Configured = CONFIGURED,
) -> int:
    """Have another host say how likely each token of a session was, and a second one where the two disagree.

    Verifiers are hosts with `engine.scoring`; they get the session's words, and are paid by the token. A host that two of them find
    inconsistent is not taken again. Exit code 0: consistent. 3: the host is wrong. 4: undecided, or not enough evidence.
    """
    from fabstir.bootstrap.auditing import audit_session
    from fabstir.cli.files import read_file, write_private
    from fabstir.cli.running import run
    from fabstir.protocol.transcript_file import encode_file

    config = common.settings(quietly=True)
    report = run(audit_session(config, read_file(file), tolerance, budget))
    if evidence is not None:
        write_private(evidence, encode_file(report))
    data = _as_data(report)
    common.show(data, lambda: "\n".join(_lines(data)))
    if report.suspect == "host":
        return HOST_IS_WRONG
    clear = report.suspect in ("nobody", "verifier") and report.audits[-1].verdict.outcome == "consistent"
    return 0 if clear else UNDECIDED


def _as_data(report: AuditReport) -> dict[str, Any]:
    return {
        "host": to_hex(report.host),
        "model_id": to_hex(report.model),
        "wrong": report.suspect,
        "audits": [
            {
                "verifier": to_hex(audit.verifier),
                "outcome": audit.verdict.outcome,
                "tokens": audit.verdict.tokens,
                "needed": audit.verdict.needed,
                "job": audit.job,
                "gates": [
                    {"name": gate.name, "value": gate.value, "threshold": gate.threshold, "count": gate.count}
                    for gate in audit.verdict.gates
                ],
                "false_positive_rate": audit.verdict.false_positive_rate,
            }
            for audit in report.audits
        ],
    }


def _lines(data: dict[str, Any]) -> list[str]:
    lines = [f"Host {data['host']}: wrong is {data['wrong']}."]
    for audit in data["audits"]:
        lines.append(f"  {audit['verifier']} says {audit['outcome']}, over {audit['tokens']} tokens")
        lines += [
            f"    {gate['name']:13} {gate['value']:.6f}, accuses above {gate['threshold']:.6f}"
            for gate in audit["gates"]
        ]
    return lines
