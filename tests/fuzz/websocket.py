"""Fuzzes the WebSocket of a real host in a process of its own: `python -m tests.fuzz.websocket --seconds 600 --seed 1`.

Prints one JSON object: messages and connections tried, crashes, what the host logged as an error, how its memory and its open files went,
and whether the sessions beside were undisturbed. Memory is flat where the median of the last fifth is not above that of the second fifth by
more than 5 % and 4 MiB. The exit status is 0 where all of that holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import WebSocketException

from fabstir.domain.errors import FabstirError
from tests.fuzz.attacks import ATTACKS, Raw
from tests.fuzz.sessions import Bystander, session, slow_reader, told

ROOT: Final = Path(__file__).parents[2]
AT_ONCE: Final = 12
"""Attacks at the same time."""
BYSTANDERS: Final = 2
SESSIONS: Final = {attack.__name__: attack for attack in (session, slow_reader)}
_EXPECTED: Final = (
    OSError,
    TimeoutError,
    WebSocketException,
    FabstirError,
    asyncio.IncompleteReadError,
    AssertionError,
)


class Victim:
    """The process under attack."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def resident(self) -> int:
        """KiB of memory that it has."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def files(self) -> int:
        """Open descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


@contextlib.asynccontextmanager
async def victim() -> Any:
    """A host, until it is done with."""
    with tempfile.TemporaryDirectory() as room:
        log = Path(room) / "log"
        with log.open("wb") as told_to:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.fuzz.victim", cwd=ROOT, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=told_to,
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            yield Victim(process, json.loads(line)["url"], log)
        finally:
            if process.returncode is None:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), 20)
                except TimeoutError:
                    process.kill()
                    await process.wait()


class Fuzzer:
    """Attacks until the time is over. Memory: counts, and a sample of the victim's size for each second."""

    def __init__(self, target: Victim, seed: int, seconds: float) -> None:
        self._target = target
        self._seed = seed
        self._ends = time.monotonic() + seconds
        self.messages = 0
        self.connections = 0
        self.kinds: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.files: list[int] = []

    def __repr__(self) -> str:
        return f"<Fuzzer {self.messages} messages in {self.connections} connections>"

    async def run(self) -> None:
        """All attackers, and the eye on the victim."""
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(self._attack(number) for number in range(AT_ONCE)))
        finally:
            watch.cancel()

    def _over(self) -> bool:
        return time.monotonic() >= self._ends or self._target.process.returncode is not None

    async def _attack(self, number: int) -> None:
        chance = random.Random(self._seed * 1_000 + number)
        while not self._over():
            name = chance.choice([*ATTACKS, *SESSIONS])
            self.kinds[name] += 1
            self.connections += 1
            if name in SESSIONS:
                with contextlib.suppress(*_EXPECTED):
                    sent = await SESSIONS[name](self._target.url, chance)
                    self.messages += sent
                continue
            raw = Raw(self._target.url)
            try:
                sent = await ATTACKS[name](raw, chance)
                self.messages += sent
            except _EXPECTED:
                self.messages += 1  # the host closed first
            finally:
                if hasattr(raw, "writer"):
                    raw.reset() if chance.random() < 0.5 else raw.writer.close()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self.sizes.append(self._target.resident())
                self.files.append(self._target.files())
            await asyncio.sleep(0.5)

    def flat(self) -> bool:
        """Memory did not grow once the host was warm."""
        fifth = max(1, len(self.sizes) // 5)
        early, late = (
            statistics.median(self.sizes[fifth : 2 * fifth] or self.sizes),
            statistics.median(self.sizes[-fifth:]),
        )
        return late <= early * 1.05 + 4_096


async def fuzz(seed: int, seconds: float) -> dict[str, Any]:
    """Everything, and what came of it."""
    async with victim() as target:
        bystanders = [Bystander(target.url) for _ in range(BYSTANDERS)]
        beside = [asyncio.create_task(bystander.run()) for bystander in bystanders]
        fuzzer = Fuzzer(target, seed, seconds)
        try:
            await fuzzer.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        crashed = target.process.returncode is not None
        if not crashed:
            await asyncio.sleep(min(12.0, seconds))  # what hangs must be let go by now
        left = -1 if crashed else target.files()
        complaints = told(target.log.read_text("utf-8", "replace"))
    times = sorted(one for bystander in bystanders for one in bystander.times)
    fifth = max(1, len(fuzzer.sizes) // 5)
    return {
        "seed": seed,
        "seconds": seconds,
        "messages": fuzzer.messages,
        "connections": fuzzer.connections,
        "by_attack": dict(sorted(fuzzer.kinds.items())),
        "crashes": int(crashed),
        "errors_logged": len(complaints),
        "first_errors": complaints[:5],
        "memory_flat": fuzzer.flat(),
        "resident_early_kib": statistics.median(fuzzer.sizes[fifth : 2 * fifth] or fuzzer.sizes),
        "resident_late_kib": statistics.median(fuzzer.sizes[-fifth:]),
        "resident_max_kib": max(fuzzer.sizes),
        "files_max": max(fuzzer.files),
        "files_after": left,
        "bystander_answers": len(times),
        "bystander_p50_ms": round(1e3 * statistics.median(times), 1) if times else None,
        "bystander_p99_ms": round(1e3 * times[int(len(times) * 0.99)], 1) if times else None,
        "bystanders_disturbed": [fault for bystander in bystanders for fault in bystander.disturbed][:10],
    }


def sound(result: dict[str, Any]) -> bool:
    """Nothing broke, nothing leaked, nobody was disturbed."""
    return (
        not result["crashes"]
        and not result["errors_logged"]
        and result["memory_flat"]
        and not result["bystanders_disturbed"]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = asyncio.run(fuzz(options.seed, options.seconds))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if sound(result) else 1


if __name__ == "__main__":
    raise SystemExit(main())
