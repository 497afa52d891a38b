"""Settings: who wins, what is refused and in which words, what is never shown."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.ops import paths, settings
from fabstir.ops.config import Config, units
from fabstir.renter.settings import RenterSettings


def refused(**environ: str) -> FabstirError:
    with pytest.raises(FabstirError) as caught:
        settings.load(environ=environ)
    return caught.value


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_defaults_hold() -> None:
    """A person who configured nothing gets the devnet and this machine only."""
    config = settings.load(environ={})
    assert config == Config()
    assert config.chain.chain_id == 31337
    assert config.api.host == "127.0.0.1"
    assert config.host.price_per_mtok == 200_000
    assert config.host.data_dir == paths.data_dir() / "host"


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(tmp_path: Path) -> None:
    """Defaults, then the file, then FABSTIR_<SECTION>_<NAME>."""
    file = write(tmp_path / "c.toml", "[host]\nprice_per_mtok = 5\nmin_deposit = 7\n")
    config = settings.load(file, environ={"FABSTIR_HOST_PRICE_PER_MTOK": "9"})
    assert (config.host.price_per_mtok, config.host.min_deposit) == (9, 7)


def test_the_file_is_found_in_the_configuration_directory_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config_dir()/config.toml is read by itself, $FABSTIR_CONFIG names another."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "fabstir").mkdir()
    write(tmp_path / "fabstir" / "config.toml", "[api]\nport = 1\n")
    other = write(tmp_path / "other.toml", "[api]\nport = 2\n")
    assert settings.load(environ={}).api.port == 1
    assert settings.load(environ={settings.CONFIG_VARIABLE: str(other)}).api.port == 2


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """Whoever names a file wants that file: no silent default."""
    with pytest.raises(FabstirError) as caught:
        settings.load(tmp_path / "absent.toml", environ={})
    assert caught.value.code == "config_missing"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[host]\nprice = 1\n", "unknown field `price` - at `$.host`"),
        ("[hosts]\n", "unknown field `hosts`"),
        ("[api]\nport = 70000\n", "at `$.api.port`"),
        ("[api]\nport = '80'\n", "Expected `int`, got `str` - at `$.api.port`"),
        ("[host]\nchallenge_min_s = 60\n", "at `$.host.challenge_min_s`"),
        ('[chain]\nmarket = "0x' + "1" * 40 + '\\n"\n', "at `$.chain.market`"),
        ("[engine]\nmodel = 3\n", "at `$.engine.model`"),
        ("[proofs]\naccepted = []\n", "at `$.proofs.accepted`"),
        ("host = 3\n", "at `$.host`"),
        ("[host\n", "is not TOML"),
        ("[engine]\nkind = 'openai'\n", "engine.base_url"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    """The person reads where the mistake is."""
    with pytest.raises(FabstirError) as caught:
        settings.load(write(tmp_path / "c.toml", text), environ={})
    assert caught.value.code == "config_invalid"
    assert says in caught.value.detail


def test_a_variable_that_names_no_setting_is_refused() -> None:
    """A misspelt variable is a mistake like a misspelt key."""
    assert "FABSTIR_HOST_PRICE names no setting" in refused(FABSTIR_HOST_PRICE="1").detail


def test_a_variable_of_the_wrong_type_is_refused_by_its_name() -> None:
    """The variable is named, not a path in a file that does not exist."""
    assert refused(FABSTIR_API_PORT="many").detail == "FABSTIR_API_PORT: Expected `int`, got `str`"


def test_variables_are_read_as_their_setting_is_typed() -> None:
    """Booleans, integers, paths with ~ and lists with commas."""
    config = settings.load(
        environ={
            "FABSTIR_HOST_AUTO_REGISTER": "false",
            "FABSTIR_ENGINE_THREADS": "3",
            "FABSTIR_ENGINE_MODEL": "~/m.gguf",
            "FABSTIR_CHAIN_RPC_URLS": "http://a.example, https://b.example",
            "FABSTIR_UNRELATED": "x",
        }
    )
    assert config.host.auto_register is False
    assert config.engine.threads == 3
    assert config.engine.model == Path("~/m.gguf").expanduser()
    assert config.chain.rpc_urls == ("http://a.example", "https://b.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_listening_beyond_this_machine_must_be_allowed(host: str) -> None:
    """Off by default, refused by name, refused without a key for what only the operator may see, possible on purpose."""
    assert refused(FABSTIR_API_HOST=host).code == "bind_refused"
    assert refused(FABSTIR_API_HOST=host, FABSTIR_API_ALLOW_REMOTE="true").code == "bind_refused"
    allowed = {"FABSTIR_API_ALLOW_REMOTE": "true", "FABSTIR_API_OPERATOR_KEY": "an-operator-key-of-mine"}
    assert settings.load(environ={"FABSTIR_API_HOST": host, **allowed}).api.host == host


def test_the_gateway_never_listens_beyond_this_machine() -> None:
    """It spends the renter's money for whoever reaches it, so allow_remote does not open it."""
    assert refused(FABSTIR_RENTER_GATEWAY_HOST="0.0.0.0", FABSTIR_API_ALLOW_REMOTE="true").code == "bind_refused"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_every_loopback_address_is_accepted(host: str) -> None:
    """All of 127/8, ::1 and localhost are this machine."""
    assert settings.load(environ={"FABSTIR_API_HOST": host}).api.host == host


def test_secrets_are_covered() -> None:
    """Neither the engine's key nor a key in an RPC URL can be printed."""
    shown = settings.plain(
        settings.load(
            environ={
                "FABSTIR_ENGINE_API_KEY": "open-sesame",
                "FABSTIR_CHAIN_RPC_URLS": "https://user:open-sesame@rpc.example:1/v2/open-sesame?k=open-sesame",
            }
        )
    )
    assert "open-sesame" not in str(shown)
    assert shown["engine"]["api_key"] == "(set)"
    assert shown["chain"]["rpc_urls"] == ["https://rpc.example:1/(hidden)"]


def test_every_setting_has_a_description_and_a_variable_of_its_own() -> None:
    """The reference is complete because the tree is."""
    every = list(settings.settings())
    assert len({setting.variable for setting in every}) == len(every)
    assert all(setting.description.endswith((".", ")")) for setting in every)


@given(
    st.recursive(
        st.integers() | st.text(max_size=5) | st.booleans(), lambda inner: st.dictionaries(st.text(max_size=5), inner)
    )
)
def test_no_tree_of_values_gets_past_the_types(tree: object) -> None:
    """Whatever a file holds, the answer is a Config or `config_invalid`."""
    try:
        outcome = type(settings.from_tree({"host": tree})).__name__
    except FabstirError as refusal:
        outcome = refusal.code
    assert outcome in {"Config", "config_invalid"}


def test_an_amount_above_64_bits_is_written_as_text(tmp_path: Path) -> None:
    """300,000 ETH in wei: as text it is kept and shown, as a number it is refused, not cut."""
    wei = "300000" + "0" * 18
    config = settings.load(write(tmp_path / "c.toml", f'[renter]\nbudget_native = "{wei}"\n'), environ={})
    assert units(config.renter.budget_native) == 3 * 10**23
    assert msgspec.json.decode(msgspec.json.encode(settings.plain(config)))["renter"]["budget_native"] == wei
    assert units(settings.load(environ={"FABSTIR_RENTER_BUDGET_NATIVE": wei}).renter.budget_native) == 3 * 10**23
    with pytest.raises(FabstirError, match="config_invalid"):
        settings.load(write(tmp_path / "d.toml", f"[renter]\nbudget_native = {wei}\n"), environ={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST_PRICE_NATIVE_PER_MTOK", "-1"),
        ("HOST_PRICE_NATIVE_PER_MTOK", "1.5"),
        ("HOST_BOND_MIN_NATIVE", "0"),
        ("HOST_REDEEM_ABOVE_NATIVE", "0"),
        ("HOST_CLAIM_TAIL_ABOVE_NATIVE", "0"),
        ("RENTER_BOND_NATIVE", "0"),
        ("RENTER_TOKEN", "dollars"),
        ("HOST_ARBITERS", "0x12"),
        ("RENTER_PRINCIPAL", "me"),
    ],
)
def test_money_that_means_nothing_is_refused(name: str, value: str) -> None:
    """By the name of the setting."""
    assert refused(**{f"FABSTIR_{name}": value}).code == "config_invalid"


def test_a_rung_needs_what_it_is_verified_with() -> None:
    """Rung 4 names the two files that are missing; 5 is none. The others stand by themselves."""
    for rung in ("0", "1", "2", "3"):
        assert settings.load(environ={"FABSTIR_RENTER_RUNG": rung}).renter.rung == int(rung)
    assert settings.load(environ={}).renter.rung is None
    files = {"FABSTIR_RENTER_ATTESTATION_POLICY": "p.json", "FABSTIR_RENTER_ATTESTATION_COLLATERAL": "c.json"}
    assert settings.load(environ={"FABSTIR_RENTER_RUNG": "4"} | files).renter.rung == 4
    for missing, value in files.items():
        one = {name: text for name, text in files.items() if name != missing}
        with pytest.raises(FabstirError, match=missing.removeprefix("FABSTIR_RENTER_").lower()):
            settings.load(environ={"FABSTIR_RENTER_RUNG": "4"} | one)
        assert value
    for rung in ("5", "-1"):
        assert refused(FABSTIR_RENTER_RUNG=rung).code == "config_invalid"


@pytest.mark.parametrize("other", ["RENTER_AUTHORIZE", "RENTER_RELAY", "RENTER_PRINCIPAL"])
def test_eth_is_paid_by_its_owner(other: str) -> None:
    """It knows no signed transfers, and nobody can pull it."""
    value = "0x" + "12" * 20 if other == "RENTER_PRINCIPAL" else "true"
    assert refused(FABSTIR_RENTER_TOKEN="eth", **{f"FABSTIR_{other}": value}).code == "config_invalid"


def test_everything_that_a_renter_wants_reaches_the_sdk() -> None:
    """Each setting in the currency of `renter.token`; the wei ones are of ETH alone."""
    environ = {
        "FABSTIR_RENTER_ARBITER": "0x" + "AB" * 20,
        "FABSTIR_RENTER_MAX_PRICE_PER_MTOK": "7",
        "FABSTIR_RENTER_POLICY": "fallback",
        "FABSTIR_RENTER_EXPOSURE": "32",
        "FABSTIR_RENTER_TOP_UP": "false",
    }
    found = RenterSettings.of(settings.load(environ=environ))
    assert (found.arbiter, found.max_price, found.exposure, found.top_up) == (b"\xab" * 20, 7, 32, False)
    assert (found.token, found.budget, found.bond, found.policy.name) == (None, 1_000_000, 100_000, "FALLBACK")
    eth = RenterSettings.of(settings.load(environ={"FABSTIR_RENTER_TOKEN": "eth"}))
    assert (eth.token, eth.budget, eth.bond) == (ZERO_ADDRESS, 4 * 10**14, 4 * 10**13)


def test_an_option_is_checked_as_the_file_is() -> None:
    """What a command changes for itself."""
    config = settings.load(environ={})
    assert settings.changed(config, "renter", "token", "eth").renter.token == "eth"
    assert settings.changed(config, "renter", "token", "eth").host == config.host
    with pytest.raises(FabstirError, match="config_invalid"):
        settings.changed(config, "renter", "token", "dollars")
