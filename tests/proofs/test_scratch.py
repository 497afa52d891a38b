"""Scratch folders: one for each process, removed by it or, where it was killed, by the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.proofs.scratch import scratch_folder


def _present(parent: Path) -> set[Path]:
    return set(parent.glob("work-*"))


def test_gone_at_the_end(tmp_path: Path) -> None:
    """A folder is there while it is used and gone afterwards, also after an error."""
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "new") as folder:
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert _present(tmp_path / "new") == set()


def test_orphans_are_removed_and_owners_left_alone(tmp_path: Path) -> None:
    """Whoever comes next removes the folder that nobody holds, not the one at work."""
    orphan = tmp_path / "work-orphan"
    with scratch_folder(tmp_path) as first:
        orphan.mkdir()
        (orphan / "witness").write_text("x")
        with scratch_folder(tmp_path) as second:
            assert _present(tmp_path) == {first, second}
        assert _present(tmp_path) == {first}
