"""Where the demo's players keep their things, and their configurations.

Nothing of the user's is read or written, but for the cache of programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID
from fabstir.chain.keys import save_key
from fabstir.ops.config import Config
from fabstir.ops.settings import from_tree
from fabstir.ports.chain import ChainInfo, contract_addresses

PRICES: Final = {"a": 200_000_000, "b": 250_000_000}
"""Base units for 1,000,000 tokens: 200 and 250 USDC. A thousand times the market's, so that a short talk shows in the table."""
IDLE_CLOSE_SECONDS: Final = 30
SETTLE_SECONDS: Final = 1
BUDGET: Final = 2_000_000
"""2 USDC for the whole conversation."""


class Places:
    """One directory for each player."""

    def __init__(self, root: Path, rpc_url: str, info: ChainInfo) -> None:
        self.root: Final = root
        self._rpc_url = rpc_url
        self._info = info

    def __repr__(self) -> str:
        return f"<Places {self.root}>"

    def host(
        self,
        name: str,
        key: bytes,
        idle_close: int = IDLE_CLOSE_SECONDS,
        parallel: int = 4,
        engine: Mapping[str, Any] = MappingProxyType({}),
    ) -> Path:
        """Write the configuration and the key of host `name`; returns the configuration's file. `engine`: more of its section."""
        home = self.root / f"host-{name}"
        home.mkdir(parents=True, exist_ok=True)
        tree = {
            "chain": self._chain(),
            "host": {
                "data_dir": str(home),
                "key_file": str(home / "key"),
                "price_per_mtok": PRICES[name],
                "stake": MINIMUM_STAKE,
                "settle_interval_s": SETTLE_SECONDS,
                "idle_close_s": idle_close,
            },
            "engine": {"threads": 1, "parallel": parallel, **engine},
            "api": {"port": 0},
            "log": {"format": "json"},
        }
        save_key(home / "key", key, chain_id=CHAIN_ID)
        file = home / "config.toml"
        file.write_text(_toml(tree), encoding="utf-8")
        return file

    def renter(self, key: bytes) -> Config:
        """The renter's configuration, its key written."""
        home = self.root / "renter"
        home.mkdir(parents=True, exist_ok=True)
        save_key(home / "key", key, chain_id=CHAIN_ID)
        renter = {"data_dir": str(home), "key_file": str(home / "key"), "budget": BUDGET, "gateway_port": 0}
        return from_tree({"chain": self._chain(), "renter": renter})

    def _chain(self) -> dict[str, Any]:
        return {"rpc_urls": [self._rpc_url], **contract_addresses(self._info)}


def _toml(tree: dict[str, dict[str, Any]]) -> str:
    """Two levels of texts, numbers and lists: what JSON writes for these is TOML."""
    lines = []
    for section, values in tree.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
