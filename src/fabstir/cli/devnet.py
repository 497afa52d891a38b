"""`fabstir devnet`: a local chain with the market's contracts on it, in the foreground."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fabstir.cli.frame import CONFIGURED, Configured


def devnet(
    *,
    port: Annotated[int, Parameter(help="Port of the chain's JSON-RPC; 0 takes a free one.")] = 8545,
    state: Annotated[
        Path | None, Parameter(help="Keep the chain in this file, and go on from it where it exists.")
    ] = None,
    common: Configured = CONFIGURED,
) -> None:
    """Start a local chain, deploy the contracts, approve the configured model, and run until Ctrl-C.

    The addresses go into the address book, where the other commands find them. The money on it is play money:
    `fabstir wallet fund` makes more.
    """
    from fabstir.bootstrap.devnet import devnet as start
    from fabstir.cli.running import run_until_stopped

    config = common.settings()

    async def main(stop: asyncio.Event) -> None:
        async with start(config, port=port, state=state, progress=_progress) as running:
            common.show(_facts(running), lambda: _for_people(running))
            sys.stdout.flush()
            ended = asyncio.ensure_future(running.wait())
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            stopped.cancel()

    run_until_stopped(main)


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _facts(running: Any) -> dict[str, Any]:
    from fabstir.ports.chain import contract_addresses

    return {"url": running.url, "chain_id": running.info.chain_id, **contract_addresses(running.info)}


def _for_people(running: Any) -> str:
    facts = "\n".join(f"  {name:10} {value}" for name, value in _facts(running).items())
    return f"The devnet runs. Ctrl-C ends it.\n{facts}\nNext, in another terminal: fabstir host init"
