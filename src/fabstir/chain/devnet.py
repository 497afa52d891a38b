"""A local chain: anvil in optimism mode, as one supervised process.

Blocks are made at once for each transaction and every second without one, so that challenges from later blocks come by
themselves; safe and finalized follow the head closely. Listens on localhost only. The process ends with ours unless it
is `detached`. Only for chain id 31337: the keys in `DEV_KEYS` are known to everybody. Specification: research/chain.md
1.1.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import psutil

from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex
from fabstir.domain.money import BaseUnits

CHAIN_ID: Final = 31337
START_SECONDS: Final = 20
"""Measured 0.05-0.13 s; a loaded machine with a large state file takes longer."""
STOP_SECONDS: Final = 15
STATE_INTERVAL: Final = 1
"""Seconds between dumps of the state file: what a SIGKILL of the chain can lose."""
PR_SET_PDEATHSIG: Final = 1

DEV_KEYS: Final = tuple(
    bytes.fromhex(key)
    for key in (
        "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
        "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
        "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
        "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
        "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
        "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
        "92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
        "4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
        "dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
        "2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    )
)
"""anvil's ten funded accounts, from the mnemonic that every Ethereum tool uses for tests."""


def dev_key(index: int, chain_id: int) -> bytes:
    """A funded key of the devnet. Raises `chain_mismatch` for any other chain."""
    if chain_id != CHAIN_ID:
        raise error("chain_mismatch", detail=f"development keys are for chain {CHAIN_ID} only, this is {chain_id}")
    return DEV_KEYS[index]


class Devnet:
    """One anvil process. `async with Devnet(...) as net: net.url`."""

    def __init__(
        self, anvil: Path, *, port: int = 0, state: Path | None = None, block_time: int = 1, detached: bool = False
    ) -> None:
        """`port` 0 takes a free one. `state` is loaded, if it exists, and kept up to date."""
        self._command = [
            str(anvil), "--quiet", "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID),
            "-n", "optimism", "--mixed-mining", "--block-time", str(block_time), "--slots-in-an-epoch", "1",
        ]  # fmt: skip
        if state is not None:
            self._command += ["--state", str(state), "--state-interval", str(STATE_INTERVAL)]
        self._detached = detached
        self._process: asyncio.subprocess.Process | None = None
        self._port = port

    def __repr__(self) -> str:
        return f"<Devnet {self.url} pid={self._process.pid if self._process else None}>"

    @property
    def url(self) -> str:
        """Where its RPC answers, once started."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the anvil process. Raises `devnet_missing` where it was not started."""
        if self._process is None:
            raise error("devnet_missing")
        return self._process.pid

    async def __aenter__(self) -> Devnet:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return once it listens. Raises `devnet_failed` with anvil's own words."""
        with tempfile.TemporaryFile() as words:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=words,
                start_new_session=True,  # Ctrl-C reaches us alone: we may still have to settle on this chain
                preexec_fn=None if self._detached else _die_with_parent,
            )
            try:
                self._port = await self._listening()
            except BaseException as cause:
                await self.stop()
                if isinstance(cause, TimeoutError):
                    words.seek(0)
                    said = words.read().decode(errors="replace").strip()
                    raise error("devnet_failed", detail=said[-400:] or f"silent for {START_SECONDS} s") from cause
                raise

    async def _listening(self) -> int:
        """The port, from the process itself: anvil prints it only together with every call it serves."""
        process = self._process
        async with asyncio.timeout(START_SECONDS):
            while process is not None and process.returncode is None:
                port = await asyncio.to_thread(_listening_port, process.pid)
                if port is not None:
                    return port
                await asyncio.sleep(0.01)
        raise TimeoutError

    async def stop(self) -> None:
        """End it, its state dumped. Nothing happens where it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait(self) -> int:
        """Return anvil's exit status when it ends by itself or by `stop`."""
        if self._process is None:
            raise error("devnet_missing")
        return await self._process.wait()


class DevnetControl:
    """What only a development chain can do. For tests, demos and the command line."""

    def __init__(self, rpc: JsonRpc) -> None:
        self._rpc = rpc

    async def mine(self, blocks: int = 1) -> None:
        """Make empty blocks now."""
        await self._ask("anvil_mine", hex(blocks))

    async def advance(self, seconds: int) -> None:
        """Move the chain's time on and make a block at that time."""
        await self._ask("evm_increaseTime", hex(seconds))
        await self.mine()

    async def snapshot(self) -> str:
        """An id for `revert`."""
        return str(await self._ask("evm_snapshot"))

    async def revert(self, snapshot: str) -> None:
        """Back to the snapshot, which is used up."""
        await self._ask("evm_revert", snapshot)

    async def reorg(self, depth: int) -> None:
        """Replace the newest `depth` blocks by empty ones."""
        await self._ask("anvil_reorg", depth, [])

    async def set_balance(self, account: Address, wei: BaseUnits) -> None:
        """Give an account coins."""
        await self._ask("anvil_setBalance", to_hex(account), hex(wei))

    async def hold_blocks(self) -> None:
        """No block any more, but those that `mine` makes."""
        await self._ask("evm_setAutomine", False)
        await self._ask("evm_setIntervalMining", 0)

    async def automine(self) -> None:
        """A block at once for each transaction."""
        await self._ask("evm_setAutomine", True)

    async def _ask(self, method: str, *params: object) -> Any:
        return await self._rpc.request(method, *params)


def _listening_port(pid: int) -> int | None:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return None
    ports = [connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN]
    return ports[0] if ports else None


_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    # Runs in the child between fork and exec: nothing that could allocate or take a lock.
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
