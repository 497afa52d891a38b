"""Tolerance files: read, written, and the one that ships with the package. What is in them:
`fabstir.protocol.audit.Tolerance`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.audit import Tolerance

FOLDER: Final = Path(__file__).with_name("data")
_decode: Final = msgspec.json.Decoder(Tolerance).decode


def tolerance_for(weights: Hash32, file: Path | None = None) -> Tolerance:
    """The tolerance of these weights: from `file`, else one that ships. Raises LocalFault (`tolerance_missing`, `tolerance_invalid`)."""
    if file is not None:
        found = read_tolerance(file)
        if found.weights != weights.hex():
            raise error(
                "tolerance_invalid", f"{file} is of weights {found.weights[:16]}, these are {weights.hex()[:16]}"
            )
        return found
    for path in sorted(FOLDER.glob("*.json")):
        shipped = read_tolerance(path)
        if shipped.weights == weights.hex():
            return shipped
    raise error("tolerance_missing", f"weights {weights.hex()[:16]}")


def tolerance_in(weights: Hash32, folder: Path | None) -> Tolerance:
    """The same, from the files of a folder where there is one. Raises LocalFault (`tolerance_missing`, `tolerance_invalid`)."""
    for path in sorted(folder.glob("*.json")) if folder else ():
        found = read_tolerance(path)
        if found.weights == weights.hex():
            return found
    return tolerance_for(weights)


def read_tolerance(path: Path) -> Tolerance:
    """From a file. Raises LocalFault (`tolerance_invalid`)."""
    try:
        return _decode(path.read_bytes())
    except OSError as fault:
        raise error("tolerance_invalid", f"{path}: {fault.strerror}") from fault
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise error("tolerance_invalid", f"{path}: {fault}") from fault


def write_tolerance(path: Path, tolerance: Tolerance) -> None:
    """To a file. Raises LocalFault (`tolerance_invalid`)."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(tolerance), indent=2) + b"\n")
    except OSError as fault:
        raise error("tolerance_invalid", f"{path}: {fault.strerror}") from fault
