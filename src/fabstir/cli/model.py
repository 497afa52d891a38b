"""`fabstir model commit|register`: what a weights file is on chain, for whoever proposes a model or checks a proposal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured

if TYPE_CHECKING:
    from fabstir.bootstrap.model_heads import ModelCommitment, Registration
    from fabstir.ops.config import Config

app = App(name="model", help="What a weights file is on chain, and its registration.")

TELL_SECONDS: Final = 2.0
File = Annotated[Path, Parameter(help="The weights, a GGUF file. Its name counts.")]
Repository = Annotated[str, Parameter(help="Where the file is from, like `org/model`. It counts.")]
WithoutHead = Annotated[
    bool, Parameter(negative="", help="Commit to no rows of the output head: no `spot` proofs of this model.")
]


@app.command
def commit(
    file: File, /, *, repository: Repository, without_head: WithoutHead = False, common: Configured = CONFIGURED
) -> None:
    """Print the model's id and everything that goes into it, with a commitment to every row of its output head.

    10 ms a row: 25 minutes for a vocabulary of 152,000. Stopped and started again it goes on where it was; the second time it takes
    seconds. Needs no chain and no key, so that anyone can check a proposal.
    """
    from fabstir.cli.running import run

    made = run(_commit(common.settings(quietly=True), file, repository, with_head=not without_head))
    common.show(_facts(made), lambda: _as_text(made))


@app.command
def register(
    file: File,
    /,
    *,
    repository: Repository,
    without_head: WithoutHead = False,
    approve: Annotated[
        bool,
        Parameter(negative="", help="Approve it too; only the registry's owner may."),
    ] = False,
    common: Configured = CONFIGURED,
) -> None:
    """Commit, and propose the model from the host's account. Where somebody else owns the registry, print what it has to send."""
    from fabstir.cli.running import run

    done = run(_register(common.settings(quietly=True), file, repository, with_head=not without_head, approve=approve))
    facts = {
        **_facts(done.model),
        "status": done.status,
        "registry": f"0x{done.registry.hex()}",
        "owner_call": f"0x{done.owner_call.hex()}" if done.owner_call else None,
    }
    common.show(facts, lambda: _registered(done))


async def _commit(config: Config, file: Path, repository: str, *, with_head: bool) -> ModelCommitment:
    from fabstir.bootstrap.model_heads import commit_model

    return await commit_model(config, file, repository, _Told(), head=with_head)


async def _register(config: Config, file: Path, repository: str, *, with_head: bool, approve: bool) -> Registration:
    from fabstir.bootstrap.model_heads import register_model

    made = await _commit(config, file, repository, with_head=with_head)
    return await register_model(config, made, approve=approve)


class _Told:
    """Progress on stderr, every few seconds."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._told = 0.0

    def __call__(self, done: int, rows: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now, done
        if now - self._told < TELL_SECONDS and done < rows:
            return
        self._told = now
        since, before = self._began
        left = (rows - done) * (now - since) / (done - before) if done > before else 0.0
        rest = f", {left / 60:.0f} min left" if left else ""
        print(f"{done:,} of {rows:,} rows{rest}", file=sys.stderr)


def _facts(made: ModelCommitment) -> dict[str, Any]:
    model, head = made.identity, made.head
    return {
        "model_id": f"0x{model.model_id.hex()}",
        "repository": model.repository,
        "file": model.file,
        "sha256": model.sha256.hex(),
        "tokenizer": model.tokenizer.hex(),
        "template": model.template.hex(),
        "head": {"root": f"0x{head.root.hex()}", "rows": head.rows, "width": head.width, "scale": head.scale},
    }


def _as_text(made: ModelCommitment) -> str:
    model, head = made.identity, made.head
    lines = [
        f"model id     0x{model.model_id.hex()}",
        f"repository   {model.repository}",
        f"file         {model.file}",
        f"weights      {model.sha256.hex()}",
        f"tokenizer    {_hash(model.tokenizer)}",
        f"template     {_hash(model.template)}",
        f"head         0x{head.root.hex()}: {head.rows:,} rows of {head.width}, scale 2^{head.scale}"
        if head.rows
        else "head         none: no `spot` proofs",
    ]
    return "\n".join(lines)


def _registered(done: Registration) -> str:
    lines = [_as_text(done.model), f"registry     0x{done.registry.hex()}: {done.status}"]
    if done.owner_call:
        lines.append(f"The registry's owner approves it by sending it these bytes:\n0x{done.owner_call.hex()}")
    return "\n".join(lines)


def _hash(value: bytes) -> str:
    return value.hex() if any(value) else "not stated in the file"
