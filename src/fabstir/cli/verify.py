"""`fabstir verify`: whether a host served what it was paid for, as far as its own records can show."""

from __future__ import annotations

from cyclopts import App

from fabstir.cli.verify_audit import audit
from fabstir.cli.verify_receipt import receipt
from fabstir.cli.verify_session import calibrate, session

app = App(name="verify", help="Whether a host served what it was paid for.", group_commands="Commands")
app.command("fabstir.cli.verify_attestation:attestation", name="attestation")
app.command(receipt)
app.command(audit)
app.command(session)
app.command(calibrate)
