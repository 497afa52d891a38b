"""Settings that change while a host runs: those that say so, all at once, and nothing else."""

from __future__ import annotations

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.ops.config import Config
from fabstir.ops.reload import Merged, merge
from fabstir.ops.settings import from_tree, settings


@pytest.fixture
def now() -> Config:
    return from_tree({"host": {"price_per_mtok": 5}, "api": {"port": 1}})


def test_what_is_live_is_taken_over_and_the_rest_is_named(now: Config) -> None:
    """The new price is in force, the new port waits for the next start, and neither is forgotten."""
    wanted = from_tree(
        {"host": {"price_per_mtok": 7, "max_sessions": 2}, "api": {"port": 2}, "log": {"level": "error"}}
    )
    merged = merge(now, wanted)
    assert (merged.config.host.price_per_mtok, merged.config.host.max_sessions) == (7, 2)
    assert (merged.config.api.port, merged.config.log.level) == (1, "error")
    assert set(merged.changed) == {"host.price_per_mtok", "host.max_sessions", "log.level"}
    assert merged.waiting == ("api.port",)
    assert merge(now, now) == Merged(now, (), ())


def test_engines_come_and_go_as_a_whole() -> None:
    """The list is one thing: it is taken over where anything in it differs."""
    wanted = from_tree({"engines": [{"kind": "openai", "base_url": "http://x/v1"}]})
    merged = merge(Config(), wanted)
    assert (merged.config.engines, merged.changed) == (wanted.engines, ("engines",))
    assert merge(wanted, Config()).config.engines == ()


def test_what_does_not_hold_together_is_refused(now: Config) -> None:
    """Live settings are checked against those that stay, too."""
    wanted = Config(host=type(now.host)(bond_min_native=0))
    with pytest.raises(LocalFault, match="config_invalid"):
        merge(now, wanted)


def test_each_setting_says_whether_it_is_live() -> None:
    """Where money lies, who signs and where the host listens never change under a running host."""
    live = {setting.path for setting in settings() if setting.live}
    assert {"host.price_per_mtok", "host.queue_max", "log.level", "engines.model"} <= live
    fixed = ("chain.", "api.", "p2p.", "proofs.", "renter.", "arbiter.", "engine.", "host.key_file", "host.data_dir")
    assert not [path for path in live if path.startswith(fixed)]
