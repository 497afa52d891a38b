"""`fabstir verify attestation`: files in, a verdict out, and no way to trust another root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Fabstir, Ran
from tests.proofs.attesting import BINDING, MR_TD, Machine, Published, claim_file, verified, verifier

from fabstir.bootstrap.attestation import verify_attestation
from fabstir.cli.verify_attestation import as_data, lines_of
from fabstir.domain.ids import Hash32, to_hex
from fabstir.protocol.attestation import Expected
from fabstir.protocol.attestation_policy import read_policy


class Files:
    """What a renter has on its disk, and the command on it."""

    def __init__(self, folder: Path, fabstir: Fabstir) -> None:
        self.claim, self.collateral, self.policy = (folder / name for name in ("claim", "collateral", "policy"))
        self.claim.write_bytes(claim_file(Machine().claim()))
        self.collateral.write_bytes(Published().file())
        self.policy.write_text(json.dumps({"images": [{"mr_td": MR_TD.hex()}]}))
        self._fabstir = fabstir

    def verify(self, *more: str) -> Ran:
        return self._fabstir("verify", "attestation", str(self.claim), "--collateral", str(self.collateral), *more)

    def refused(self, *more: str) -> tuple[str, str]:
        ran = self.verify(*more, "--json")
        assert ran.code == 1
        fault = ran.json()["error"]
        return fault["code"], fault["detail"]


@pytest.fixture
def files(tmp_path: Path, fabstir: Fabstir) -> Files:
    """All of them well."""
    return Files(tmp_path, fabstir)


def test_the_command_trusts_intels_root_alone(files: Files) -> None:
    """The tests' hierarchy gets exit code 3 and the reason, with or without a policy, and there is no option for another root."""
    ran = files.verify("--policy", str(files.policy), "--nonce", BINDING.nonce.hex(), "--json")
    assert ran.code == 3
    told = ran.json()
    assert [each["reason"] for each in told["failures"]] == ["certificate_root"]
    assert (told["accepted"], told["machine"]) == (False, None)
    assert "NOT ACCEPTED" in files.verify().out
    assert files.verify("--root", "x").code == 2


def test_what_was_expected_is_compared_even_so(files: Files) -> None:
    """Every reason is told at once."""
    options = ("--nonce", "00" * 32, "--host", to_hex(bytes(20)), "--key", "00" * 32, "--model", "00" * 32)
    told = files.verify(*options, "--json").json()
    assert [each["reason"] for each in told["failures"]] == [
        "nonce_mismatch",
        "host_mismatch",
        "key_mismatch",
        "model_mismatch",
        "certificate_root",
    ]


async def test_an_accepted_attestation_is_shown_with_all_that_was_measured(files: Files) -> None:
    """The same way with the tests' root, which only a caller in Python can name."""
    asked = Expected(nonce=BINDING.nonce)
    verdict = await verify_attestation(files.claim, files.collateral, files.policy, asked, verifier())
    assert verdict == verified(Machine().claim(), policy=read_policy(files.policy.read_bytes()))
    told = as_data(verdict)
    assert (told["accepted"], told["fresh"], told["failures"]) == (True, True, [])
    assert told["machine"]["mr_td"] == MR_TD.hex()
    text = "\n".join(lines_of(verdict))
    assert text.startswith("ACCEPTED") and MR_TD.hex() in text and "UpToDate" in text
    assert "--nonce" not in text
    stale = await verify_attestation(files.claim, files.collateral, files.policy, Expected(), verifier())
    assert stale.accepted
    assert "may be an old quote" in "\n".join(lines_of(stale))


async def test_without_a_policy_nothing_is_accepted(files: Files) -> None:
    """The measurements are shown, so that a policy can be written."""
    verdict = await verify_attestation(
        files.claim, files.collateral, None, Expected(nonce=Hash32(BINDING.nonce)), verifier()
    )
    assert not verdict.accepted
    text = "\n".join(lines_of(verdict))
    assert "policy_empty" in text and MR_TD.hex() in text


def test_files_that_cannot_be_meant_are_refused(files: Files) -> None:
    """Missing, no claim, another format, a policy with a misspelt key, a nonce that is none."""
    assert files.refused("--nonce", "12")[0] == "request_invalid"
    assert files.refused("--host", "nobody")[0] == "request_invalid"
    files.policy.write_text('{"image": []}')
    assert files.refused("--policy", str(files.policy))[0] == "request_invalid"
    good = files.claim.read_text()
    for name in ("sev-snp", "nvidia-gpu"):
        files.claim.write_text(good.replace("tdx-quote-4", name))
        code, detail = files.refused()
        assert (code, name in detail) == ("attestation_unsupported", True)
    for bad in ("", "{}", good.replace('"quote": "', '"quote": "*'), "\xff"):
        files.claim.write_bytes(bad.encode("latin-1"))
        assert files.refused()[0] == "request_invalid"
    files.claim.unlink()
    assert "No such file" in files.refused()[1]
