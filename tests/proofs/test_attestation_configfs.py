"""Quotes from the kernel: asked for by its rules, and refused where the machine cannot make the one that is verified here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.proofs.attesting import BINDING, Machine

from fabstir.domain.errors import FabstirError
from fabstir.proofs.attestation.configfs import ConfigfsEntries, ConfigfsTdx
from fabstir.protocol.attestation import Format
from fabstir.testing.attestation import MemoryReports

DATA = BINDING.report_data


def machine(report_data: bytes) -> bytes:
    """What a TDX machine answers."""
    return Machine(report_data=report_data).quote()


async def refused(provider: ConfigfsTdx, part: str) -> None:
    """One question is refused by name, with these words."""
    with pytest.raises(FabstirError) as fault:
        await provider.quote(DATA)
    assert fault.value.code == "attestation_unavailable"
    assert part in fault.value.detail


async def test_a_quote_has_the_report_data_that_was_asked_for() -> None:
    """One entry, one question, and nothing of it stays."""
    reports = MemoryReports(machine)
    provider = ConfigfsTdx(reports)
    assert provider.format is Format.TDX_QUOTE_4
    assert await provider.quote(DATA) == machine(DATA)
    assert reports.entries == {}


async def test_without_the_kernels_interface_it_is_unavailable(tmp_path: Path) -> None:
    """Any machine that is no confidential virtual machine: refused with the path, nothing is made up."""
    await refused(ConfigfsTdx(ConfigfsEntries(tmp_path / "tsm" / "report")), "/sys/kernel/config/tsm/report")


@pytest.mark.parametrize("provider", [b"sev_guest\n", b"", b"\xff"])
async def test_another_kind_of_machine_is_unavailable(provider: bytes) -> None:
    """The same interface serves AMD's machines; their reports are not taken for ours."""
    reports = MemoryReports(machine, provider)
    await refused(ConfigfsTdx(reports), "not of TDX")
    assert reports.entries == {}


async def test_a_quote_that_is_not_verified_here_is_not_handed_out() -> None:
    """Another version, another question, no quote at all: told to the operator, not to the renter."""
    await refused(ConfigfsTdx(MemoryReports(lambda data: Machine(report_data=data, version=5).quote())), "version is 5")
    await refused(ConfigfsTdx(MemoryReports(lambda _data: machine(bytes(64)))), "another question")
    await refused(ConfigfsTdx(MemoryReports(lambda _data: b"")), "header")


async def test_a_question_of_somebody_else_in_between_is_noticed() -> None:
    """The kernel's count of writes says so."""
    reports = MemoryReports(machine)
    reports.generation = b"7\n"
    await refused(ConfigfsTdx(reports), "0 questions")
    reports.generation = b"many"
    await refused(ConfigfsTdx(reports), "no number")
    assert reports.entries == {}


async def test_an_entry_is_removed_where_the_kernel_refuses_the_quote() -> None:
    """A hypervisor without a quoting service answers with an error; entries do not pile up."""

    def refuse(_data: bytes) -> bytes:
        raise TimeoutError("no answer")

    reports = MemoryReports(refuse)
    await refused(ConfigfsTdx(reports), "no answer")
    assert reports.entries == {}


async def test_report_data_has_64_bytes() -> None:
    """Anything else is a mistake of the caller and reaches no kernel."""
    with pytest.raises(ValueError, match="64"):
        await ConfigfsTdx(MemoryReports(machine)).quote(b"short")


def test_the_kernels_files_are_written_at_once_and_read_whole(tmp_path: Path) -> None:
    """On a directory of ours, where files do not appear by themselves."""
    entries = ConfigfsEntries(tmp_path)
    entries.create("one")
    with pytest.raises(FileNotFoundError):
        entries.write("one", "inblob", DATA)
    (tmp_path / "one" / "inblob").touch()
    entries.write("one", "inblob", DATA)
    assert entries.read("one", "inblob") == DATA
    (tmp_path / "one" / "inblob").unlink()
    entries.remove("one")
    assert list(tmp_path.iterdir()) == []
