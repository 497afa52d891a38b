"""A file of settings that is followed: what is valid is taken over, what is not changes nothing and is said aloud."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.host.world import eventually

from fabstir.bootstrap.models import served_models
from fabstir.bootstrap.reloading import Reloaded, Reloader, changes_of
from fabstir.domain.errors import FabstirError, LocalFault, error
from fabstir.ops.config import Config
from fabstir.ops.settings import from_tree, load


class Followed:
    """A reloader over a real file, and what it applied."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.write(text)
        self.applied: list[Config] = []
        self.failing: FabstirError | None = None
        self.reloader = Reloader(load(file, environ={}), lambda: load(file, environ={}), self.apply)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    async def apply(self, config: Config) -> dict[str, str]:
        if self.failing is not None:
            raise self.failing
        self.applied.append(config)
        return {"big": "model_invalid"} if config.engines else {}


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "config.toml", "[host]\nprice_per_mtok = 5\n")


async def test_a_valid_file_is_taken_over(followed: Followed) -> None:
    """Once; the same file again changes nothing."""
    followed.write("[host]\nprice_per_mtok = 6\n[api]\nport = 9\n")
    expected = Reloaded(changed=("host.price_per_mtok",), waiting=("api.port",))
    assert await followed.reloader.reload() == expected
    assert [config.host.price_per_mtok for config in followed.applied] == [6]
    assert (await followed.reloader.reload()).changed == ()
    assert len(followed.applied) == 1
    assert followed.reloader.part().reason == "at the next start: api.port"


@pytest.mark.parametrize(
    "text", ["[host", "[host]\nprice_per_mtok = 0\n", "[host]\nprise = 1\n", "[host]\nbond_min_native = 0\n"]
)
async def test_a_file_that_is_not_valid_changes_nothing(
    followed: Followed, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log and health say so, with the place, until the file is valid again."""
    followed.write(text)
    with pytest.raises(LocalFault, match="config_invalid"):
        await followed.reloader.reload()
    assert (followed.applied, followed.reloader.config.host.price_per_mtok) == ([], 5)
    assert followed.reloader.part().status == "refused" and "config_invalid" in followed.reloader.part().reason
    assert "settings_refused" in capsys.readouterr().out
    followed.write("[host]\nprice_per_mtok = 8\n")
    await followed.reloader.reload()
    assert (followed.reloader.part().status, followed.reloader.config.host.price_per_mtok) == ("ok", 8)


async def test_what_cannot_be_applied_is_not_in_force(followed: Followed) -> None:
    """A model that is not approved, a chain that does not answer: the settings of before stay, and are tried again."""
    followed.failing = error("chain_unreachable", "nobody answers")
    followed.write('[[engines]]\nkind = "openai"\nbase_url = "http://x/v1"\n')
    with pytest.raises(FabstirError, match="chain_unreachable"):
        await followed.reloader.reload()
    assert followed.reloader.config.engines == ()
    followed.failing = None
    done = await followed.reloader.reload()
    assert (done.changed, done.failed) == (("host.price_per_mtok", "engines"), {"big": "model_invalid"})


async def test_the_file_is_followed_and_so_is_the_signal(followed: Followed) -> None:
    """Written in place or replaced by another file, it is read; a bad one ends nothing; SIGHUP reads it, too."""
    again = asyncio.Event()
    following = asyncio.create_task(followed.reloader.follow(followed.file, again))

    async def became(price: int, write: bool = True) -> None:
        def seen() -> bool:
            # written again and again: whether the watch stood before the first write is not for the test to know
            if write:
                followed.write(f"[host]\nprice_per_mtok = {price}\n")
            return followed.reloader.config.host.price_per_mtok == price

        async with asyncio.timeout(30):
            while not seen():  # noqa: ASYNC110 - nothing tells us
                await asyncio.sleep(0.25)

    await became(11)
    followed.write("[host")
    await eventually(lambda: followed.reloader.part().status == "refused")
    other = followed.file.with_suffix(".new")
    other.write_text("[host]\nprice_per_mtok = 12\n")
    other.replace(followed.file)
    await became(12, write=False)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    followed.write("[host]\nprice_per_mtok = 13\n")
    signalled = asyncio.create_task(followed.reloader._on_signal(again))
    again.set()
    await became(13, write=False)
    signalled.cancel()


async def test_no_directory_is_no_fault(tmp_path: Path) -> None:
    """A host whose settings come from the environment alone follows nothing."""
    waiting = asyncio.ensure_future(anext(aiter(changes_of(tmp_path / "nowhere" / "config.toml"))))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


SERVER = {"kind": "openai", "base_url": "http://x/v1"}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"engines": [{}], "proofs": {"circuit": "spot"}}, "there are 2 engines"),
        ({"engines": [{"fingerprints": True}]}, "made by one engine"),
        ({"engines": [{}], "attestation": {"provider": "tdx-configfs"}}, "with one model"),
        ({"engines": [{"price_per_mtok": 7}]}, "engine are engines of one model and have different prices"),
        ({"engines": [SERVER]}, "engines[0].model must name the weights"),
        ({"engines": [{"model": "/nowhere.gguf"}]}, "engines[0].model and engines[0].repository go together"),
        ({"engines": [{"top_logprobs": 0}], "proofs": {"backend": "merkle", "circuit": "sample"}}, "at least 1"),
    ],
)
async def test_engines_that_do_not_go_together_are_refused(tree: dict[str, object], words: str) -> None:
    """By what, and where in the settings; nothing is served by half."""
    with pytest.raises(LocalFault, match="config_invalid") as refused:
        await served_models(from_tree(tree))
    assert words in str(refused.value)


async def test_engines_of_one_model_are_one_offer() -> None:
    """The same file twice is one model with two engines; it scores only where both do."""
    (one,) = await served_models(from_tree({"engine": {"scoring": True}, "engines": [{"threads": 1}]}))
    assert (tuple(one.engines), one.terms.scores, len(one.sections)) == (("engine", "engines[0]"), False, 2)
