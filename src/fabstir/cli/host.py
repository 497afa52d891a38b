"""`fabstir host init|start|status|stop`: a host on this machine. The commands of its stake are in `stake`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from fabstir.cli import host_models, stake
from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.errors import error

if TYPE_CHECKING:
    from fabstir.host.node import HostNode
    from fabstir.ops.config import Config

app = App(name="host", help="Serve a model and be paid for it.", group_commands="Commands")
stake.add_to(app)
host_models.add_to(app)
RUNNING_FILE: Final = "running.json"
STOP_SECONDS: Final = 150
"""The drain's bound (120 s) and time to go down."""


class Running(msgspec.Struct, frozen=True):
    """What a host that runs leaves in its data directory."""

    pid: int
    url: str
    control: str = ""
    """Its socket for commands."""


@app.command
def init(
    *,
    price_per_mtok: Annotated[
        int, Parameter(help="Base units for 1,000,000 generated tokens; 200000 is 0.20 USDC.")
    ] = 200_000,
    port: Annotated[int, Parameter(help="Port of the API; 0 takes a free one at each start.")] = 8080,
    common: Configured = CONFIGURED,
) -> None:
    """Write a configuration and a key for a host; on a devnet also put play money on the key, the stake of a host with it.

    Nothing that exists is overwritten.
    """
    from fabstir.cli.running import run
    from fabstir.ops import paths, settings

    file = common.config or paths.config_dir() / "config.toml"
    wrote = not file.exists() and _write_config(
        file, price_per_mtok, port, _stake_to_write(settings.from_environment())
    )
    config = Configured(json=common.json, config=file).settings()
    made, account = _make_key(config)
    funded = run(_fund(config, account)) if config.chain.chain_id == 31337 else False
    facts = {
        "config": str(file),
        "config_written": wrote,
        "key_file": str(config.host.key_file),
        "key_made": made,
        "account": f"0x{account.hex()}",
        "funded": funded,
    }
    next_step = "fabstir host start" + (f" --config {file}" if common.config else "")
    common.show(facts, lambda: "\n".join(f"  {k:15} {v}" for k, v in facts.items()) + f"\nNext: {next_step}")


def _stake_to_write(config: Config) -> int:
    """On the devnet the minimum, which is play money and is put on the key; elsewhere a stake is a person's decision."""
    from fabstir.chain.deployment import MINIMUM_STAKE

    return MINIMUM_STAKE if config.chain.chain_id == 31337 else 0


def _write_config(file: Path, price: int, port: int, stake: int) -> bool:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staked = f"stake = {stake}\n" if stake else ""
    text = (
        "# All settings: docs/reference/configuration.md\n\n"
        f"[host]\nprice_per_mtok = {price}\n{staked}\n[api]\nport = {port}\n"
    )
    file.write_text(text, encoding="utf-8")
    return True


def _make_key(config: Config) -> tuple[bool, bytes]:
    from fabstir.bootstrap.keys import key_file, make_key, read_key
    from fabstir.protocol.signing import SigningKey

    if key_file(config, "host").exists():
        return False, SigningKey(read_key(config, "host")).address
    return True, SigningKey(make_key(config, "host")).address


async def _fund(config: Config, account: bytes) -> bool:
    """Gas, and as much test USDC as `host.stake` still lacks."""
    from fabstir.bootstrap.devnet import fund_stake_on_devnet
    from fabstir.domain.errors import FabstirError
    from fabstir.domain.ids import Address

    try:
        await fund_stake_on_devnet(config, Address(account))
    except FabstirError as fault:
        print(f"Not funded: {fault}", file=sys.stderr)
        return False
    return True


@app.command
def start(*, common: Configured = CONFIGURED) -> None:
    """Serve until SIGINT or SIGTERM: load the model, register on chain, answer, settle.

    The first signal lets running answers end, the second does not. SIGHUP, or writing the file of settings, takes over what may change.
    """
    from fabstir.bootstrap.host import run_host
    from fabstir.bootstrap.reloading import Source
    from fabstir.cli.running import run_until_stopped
    from fabstir.ops import settings

    config = common.settings()
    file = config.host.data_dir / RUNNING_FILE

    def ready(node: HostNode, url: str, control: Path) -> None:
        file.write_bytes(msgspec.json.encode(Running(os.getpid(), url, str(control))))
        names = ", ".join(model.name for model in node.offer.models)
        facts = {"url": url, "account": f"0x{node.offer.host.hex()}", "model": names}
        common.show(facts, lambda: f"Serving {facts['model']} at {url} as {facts['account']}. Ctrl-C ends it.")
        sys.stdout.flush()

    async def main(stop: asyncio.Event) -> None:
        source, again = settings.place(common.config)[0], asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again.set)
        try:
            await run_host(config, stop, ready, Source(source, lambda: settings.load(common.config), again))
        finally:
            file.unlink(missing_ok=True)

    run_until_stopped(main)


@app.command
def status(*, common: Configured = CONFIGURED) -> int:
    """How the host on this machine is, part by part. Exit code 0 only where all is well."""
    from fabstir.cli.running import run

    running = running_host(common.settings())
    health = run(_health(running, common.settings().api.operator_key))
    common.show(health, lambda: _table(running, health))
    return 0 if health.get("status") == "ok" else 1


async def _health(running: Running, key: str | None) -> dict[str, Any]:
    import aiohttp

    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http,
            http.get(running.url + "/health", headers=headers) as answer,
        ):
            found: dict[str, Any] = msgspec.json.decode(await answer.read())
            return found
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as gone:
        raise error("host_not_running", f"process {running.pid} lives and {running.url} does not answer") from gone


def _table(running: Running, health: dict[str, Any]) -> str:
    lines = [f"{health['status']}: {running.url}, process {running.pid}"]
    for name, part in health.items():
        if isinstance(part, dict):
            lines.append(f"  {name:13} " + ", ".join(f"{k} {v}" for k, v in part.items() if v not in ("", None)))
        elif isinstance(part, list):
            lines += [f"  {name:13} {each['status']} {each['name']} {each['reason']}".rstrip() for each in part]
        elif name != "status":
            lines.append(f"  {name:13} {part}")
    return "\n".join(lines)


@app.command
def stop(*, common: Configured = CONFIGURED) -> None:
    """Stop the host on this machine: running answers end first. Returns when it is down."""
    running = running_host(common.settings())
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _alive(running.pid):
        if time.monotonic() > deadline:
            raise error("host_unreachable", f"process {running.pid} is still there after {STOP_SECONDS} s")
        time.sleep(0.05)
    common.show({"stopped": running.pid}, lambda: f"Stopped process {running.pid}.")


def running_host(config: Config) -> Running:
    """The host of this machine. Raises LocalFault (`host_not_running`)."""
    file = config.host.data_dir / RUNNING_FILE
    try:
        running = msgspec.json.decode(file.read_bytes(), type=Running)
    except FileNotFoundError as missing:
        raise error("host_not_running", f"{file} does not exist") from missing
    except msgspec.MsgspecError as broken:
        raise error("host_not_running", f"{file} cannot be read") from broken
    if not _alive(running.pid):
        raise error("host_not_running", f"process {running.pid} is gone; it did not end by itself")
    return running


def _alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
