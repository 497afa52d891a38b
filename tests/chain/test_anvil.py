"""Finding anvil: the person's own first, then the cache, then npm; nothing runs that is not the pinned program."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fabstir.chain import anvil
from fabstir.domain.errors import LocalFault

PROGRAM = b"#!/bin/sh\necho a program\n"


def _sha512(data: bytes) -> str:
    return base64.b64encode(hashlib.sha512(data).digest()).decode()


def _package(program: bytes = PROGRAM) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/bin/anvil")
        entry.size = len(program)
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it: no ANVIL, no Foundry, no npm; returns its only PATH directory."""
    monkeypatch.delenv("ANVIL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "path"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    return place


@pytest.fixture
def npm(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes], None]:
    """An npm that delivers a given package; the pins name package and program."""

    def deliver(package: bytes, pinned_program: bytes = PROGRAM) -> None:
        (tmp_path / "package.tgz").write_bytes(package)
        _script(bare / "npm", f'for last; do :; done\n/bin/cp {tmp_path}/package.tgz "$last/anvil.tgz"')
        pin = anvil._Pin(_sha512(_package()), _sha512(pinned_program))
        monkeypatch.setattr(anvil, "PINS", {anvil._platform(): pin})

    return deliver


async def _find(tmp_path: Path) -> Path:
    return await anvil.find_anvil(tmp_path / "cache")


async def test_the_persons_own_comes_first(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.foundry/bin, before it PATH, before it ANVIL."""
    foundry = _script(tmp_path / "home" / ".foundry" / "bin" / "anvil", "true")
    assert await _find(tmp_path) == foundry
    on_path = _script(bare / "anvil", "true")
    assert await _find(tmp_path) == on_path
    named = _script(tmp_path / "mine", "true")
    monkeypatch.setenv("ANVIL", str(named))
    assert await _find(tmp_path) == named


async def test_a_named_program_that_is_none_is_refused(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No silent fallback to another one."""
    monkeypatch.setenv("ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(LocalFault, match="tool_missing"):
        await _find(tmp_path)


@pytest.mark.real
async def test_npm_fetches_once(npm: Callable[..., None], bare: Path, tmp_path: Path) -> None:
    """Fetched, checked and kept: the next time npm is not needed. Progress is told."""
    npm(_package())
    told: list[str] = []
    found = await anvil.find_anvil(tmp_path / "cache", told.append)
    assert found.read_bytes() == PROGRAM
    assert len(told) == 2
    (bare / "npm").unlink()
    assert await _find(tmp_path) == found
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [f"anvil-{anvil.VERSION}"]


@pytest.mark.real
@pytest.mark.parametrize("wrong", ["package", "program"])
async def test_what_is_not_pinned_is_never_kept(npm: Callable[..., None], tmp_path: Path, wrong: str) -> None:
    """Another package, or a package with another program in it."""
    npm(_package(b"evil") if wrong == "package" else _package(), b"other" if wrong == "program" else PROGRAM)
    with pytest.raises(LocalFault, match="tool_corrupt"):
        await _find(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.real
async def test_a_cached_program_that_changed_is_never_run(npm: Callable[..., None], tmp_path: Path) -> None:
    """The detail names the file to remove."""
    npm(_package())
    found = await _find(tmp_path)
    found.write_bytes(PROGRAM + b"evil")
    with pytest.raises(LocalFault, match="tool_corrupt") as refused:
        await _find(tmp_path)
    assert str(found) in refused.value.detail


@pytest.mark.real
async def test_npm_that_fails_is_quoted(bare: Path, tmp_path: Path) -> None:
    """`tool_missing` with npm's last words."""
    _script(bare / "npm", "echo no network >&2; exit 1")
    with pytest.raises(LocalFault, match="tool_missing") as refused:
        await _find(tmp_path)
    assert "no network" in refused.value.detail


async def test_without_any_way_the_ways_are_told(bare: Path, tmp_path: Path) -> None:
    """What to install, in one sentence."""
    with pytest.raises(LocalFault, match="tool_missing") as refused:
        await _find(tmp_path)
    assert "Node.js" in refused.value.next_step


async def test_an_unknown_machine_is_told(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pin, no download."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(LocalFault, match="riscv64"):
        await _find(tmp_path)
