"""Branch coverage of the WebSocket and session code by the tests that start no process: `make coverage`, fails below LEAST percent.

Only these files are traced, so that it costs little more than the tests themselves. `python tools/session_coverage.py -k name` runs some.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

LEAST: Final = 90
ROOT: Final = Path(__file__).resolve().parent.parent
CODE: Final = (
    "api/websocket.py",
    "api/server.py",
    "api/host_answers.py",
    "api/host_paid.py",
    "api/host_sessions.py",
    "api/inference.py",
    "host/admission.py",
    "host/entrance.py",
    "host/http_session.py",
    "host/http_sessions.py",
    "host/http_transport.py",
    "host/link.py",
    "host/reception.py",
    "host/session_actor.py",
    "ports/sealed_transport.py",
    "protocol/admission.py",
    "protocol/answer.py",
    "protocol/channel.py",
    "protocol/context/*.py",
    "protocol/from_*.py",
    "protocol/host_*.py",
    "protocol/messages.py",
    "protocol/meter.py",
    "protocol/renter_*.py",
    "protocol/transcript.py",
    "renter/access.py",
    "renter/answer.py",
    "renter/calling.py",
    "renter/link.py",
    "renter/pool.py",
    "renter/session.py",
    "renter/transport.py",
)
TESTS: Final = (
    "tests/api/test_bad_openings.py",
    "tests/api/test_bad_sessions.py",
    "tests/api/test_channel.py",
    "tests/api/test_gateway.py",
    "tests/api/test_http_sessions.py",
    "tests/api/test_many_and_private.py",
    "tests/api/test_server.py",
    "tests/api/test_websocket.py",
    "tests/host",
    "tests/protocol",
    "tests/renter",
)
DATA: Final = ROOT / ".coverage.sessions"


def main(arguments: list[str]) -> int:
    """Run, then print; the result is that of the tests, or of the report."""
    files = ",".join(f"*/fabstir/{file}" for file in CODE)
    run = ("coverage", "run", "--branch", f"--data-file={DATA}", f"--include={files}", "-m", "pytest", "-q")
    tested = _call(*run, "-m", "not real and not scenario", *TESTS, *arguments)
    _call("coverage", "combine", "-q", f"--data-file={DATA}")
    reported = _call("coverage", "report", f"--data-file={DATA}", f"--include={files}", f"--fail-under={LEAST}")
    return tested or reported


def _call(module: str, *arguments: str) -> int:
    return subprocess.run((sys.executable, "-m", module, *arguments), cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
