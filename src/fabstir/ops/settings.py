"""Reads the settings: defaults, then the file, then the environment; the last one that speaks wins.

Refuses what it does not know, naming the place as a JSON path, and refuses to listen beyond this machine unless that
was allowed. Never changes a value silently and never writes the file. The tree itself is `fabstir.ops.config`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from fabstir.domain.errors import error
from fabstir.ops import paths
from fabstir.ops.config import ETH, Config, units

PREFIX: Final = "FABSTIR_"
ATTESTED: Final = 4
"""Rung of the ladder."""
CONFIG_VARIABLE: Final = "FABSTIR_CONFIG"
"""Names the file where --config does not."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as the reference and `fabstir config show` present it."""

    section: str
    name: str
    kind: str
    """For a person: `integer, 1 to 4096`."""
    description: str
    secret: bool
    annotation: Any
    live: bool = False
    """Takes effect in a host that runs."""
    listed: bool = False
    """Of a table that may be there several times: `[[engines]]`. The environment has no name for it."""

    @property
    def path(self) -> str:
        """As it is called in texts: `host.price_per_mtok`."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return f"{PREFIX}{self.section}_{self.name}".upper()


def load(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The settings in force. Raises LocalFault (`config_invalid`, `config_missing`, `bind_refused`).

    `file` (or $FABSTIR_CONFIG) must exist; without it `config_dir()/config.toml` is read where there is one.
    """
    environ = os.environ if environ is None else environ
    source, named = place(file, environ)
    raw = _read(source, must_exist=named)
    _apply_environment(raw, environ)
    return from_tree(raw)


def place(file: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Path, bool]:
    """The file that `load` reads, and whether somebody named it."""
    environ = os.environ if environ is None else environ
    named = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    return named or paths.config_dir() / "config.toml", named is not None


def from_environment(environ: Mapping[str, str] | None = None) -> Config:
    """Defaults and environment, as they are before there is a file. Raises LocalFault (`config_invalid`, `bind_refused`)."""
    raw: dict[str, Any] = {}
    _apply_environment(raw, os.environ if environ is None else environ)
    return from_tree(raw)


def from_tree(raw: Mapping[str, Any]) -> Config:
    """The settings that nested dictionaries stand for. Raises LocalFault (`config_invalid`, `bind_refused`)."""
    try:
        config = msgspec.convert(raw, Config, dec_hook=_custom)
    except msgspec.ValidationError as refused:
        raise error("config_invalid", detail=str(refused)) from refused
    check(config)
    return config


def changed(config: Config, section: str, name: str, value: Any) -> Config:
    """`config` with one setting as a command's option has it, checked as the file is. Raises LocalFault (`config_invalid`)."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(config, enc_hook=str)
    tree[section][name] = value
    return from_tree(tree)


def settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the file."""
    return tuple(_settings())


def plain(config: Config) -> dict[str, dict[str, Any]]:
    """As nested dictionaries of JSON's types, with every secret covered."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(config, enc_hook=str)
    for setting in settings():
        if setting.secret:
            for table in tables(tree, setting.section):
                table[setting.name] = _covered(table[setting.name])
    return tree


def tables(tree: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """The tables called `section`: one, or as many as there are of one that is listed."""
    found: Any = tree[section]
    return list(found) if isinstance(found, list | tuple) else [found]


def refuse_remote_bind(name: str, host: str, *, allowed: bool) -> None:
    """Raises LocalFault (`bind_refused`) where `host` can be reached from elsewhere and that was not allowed."""
    if allowed or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass  # a name: it may resolve to anything
    raise error("bind_refused", detail=f"{name} is {host!r}, which is not an address of this machine alone")


def _settings() -> Iterator[Setting]:
    for section, hint in get_type_hints(Config).items():
        listed = get_origin(hint) is tuple
        table = get_args(hint)[0] if listed else hint
        for name, annotation in get_type_hints(table, include_extras=True).items():
            metas = [meta for meta in get_args(annotation)[1:] if isinstance(meta, msgspec.Meta)]
            yield Setting(
                section=section,
                name=name,
                kind=_describe(annotation),
                description=next(meta.description for meta in metas if meta.description),
                secret=any((meta.extra or {}).get("secret", False) for meta in metas),
                annotation=annotation,
                live=listed or any((meta.extra or {}).get("live", False) for meta in metas),
                listed=listed,
            )


def _covered(value: Any) -> Any:
    """Of a URL its origin (providers put keys into the path), of anything else only that it is set."""
    if isinstance(value, list | tuple):
        return [_covered(part) for part in value]
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts and parts.hostname:
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}" + (
            "/(hidden)" if parts.path.strip("/") or parts.query else ""
        )
    return None if value is None else "(set)"


def _read(file: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        if must_exist:
            raise error("config_missing", detail=f"{file} does not exist") from missing
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise error("config_invalid", detail=f"{file} is not TOML: {broken}") from broken
    except OSError as refused:
        raise error("config_invalid", detail=f"{file} cannot be read: {refused.strerror}") from refused


def _apply_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Put FABSTIR_<SECTION>_<NAME> over `raw`; such a variable that names no setting is refused like an unknown key."""
    known = {setting.variable: setting for setting in settings() if not setting.listed}
    heads = tuple({f"{PREFIX}{setting.section}_".upper() for setting in settings()})
    for variable, text in sorted(environ.items()):
        if not variable.startswith(heads):
            continue
        if variable not in known:
            raise error("config_invalid", detail=f"{variable} names no setting")
        setting = known[variable]
        table = raw.setdefault(setting.section, {})
        if isinstance(table, dict):  # else the conversion of the file refuses it, with its path
            table[setting.name] = _parse(setting, text)


def _parse(setting: Setting, text: str) -> Any:
    """`text` as the type of `setting`; a list is written with commas."""
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if setting.kind.startswith("list") else text
    try:
        converted = msgspec.convert(value, setting.annotation, strict=False, dec_hook=_custom)
    except msgspec.ValidationError as refused:
        raise error("config_invalid", detail=f"{setting.variable}: {refused}") from refused
    return str(converted) if isinstance(converted, Path) else converted


def _custom(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def check(config: Config) -> None:
    """What a single value cannot show. Raises LocalFault (`config_invalid`, `bind_refused`)."""
    refuse_remote_bind(
        "api.host", config.api.host, allowed=config.api.allow_remote and config.api.operator_key is not None
    )
    refuse_remote_bind("renter.gateway_host", config.renter.gateway_host, allowed=False)
    _check_currencies(config)
    _check_rung(config)
    if config.renter.context_strategy == "retrieve" and not config.renter.embeddings:
        detail = "`retrieve` ranks turns by embeddings, and renter.embeddings is false - at `$.renter.embeddings`"
        raise error("config_invalid", detail=detail)
    engines = (("engine", config.engine), *((f"engines[{n}]", each) for n, each in enumerate(config.engines)))
    for name, engine in engines:
        if engine.kind == "openai" and engine.base_url is None:
            raise error(
                "config_invalid",
                detail=f"{name}.kind is 'openai' and {name}.base_url is not set - at `$.{name}.base_url`",
            )


def _check_currencies(config: Config) -> None:
    renter = config.renter
    bonds = (("host.bond_min_native", config.host.bond_min_native), ("renter.bond_native", renter.bond_native))
    for name, bond in bonds:
        if units(bond) == 0:
            raise error("config_invalid", detail=f"the contract knows no bond of 0 - at `$.{name}`")
    for name in ("redeem_above_native", "claim_tail_above_native"):
        if units(getattr(config.host, name)) == 0:
            raise error("config_invalid", detail=f"nothing is not worth a transaction - at `$.host.{name}`")
    signs = renter.authorize or renter.relay
    if renter.token == ETH and (signs or renter.principal):
        raise error(
            "config_invalid",
            detail="signed transfers and delegates' budgets are of tokens, not of ETH - at `$.renter.token`",
        )
    if renter.principal and signs:
        raise error(
            "config_invalid", detail="only its owner's key signs a transfer of its money - at `$.renter.principal`"
        )


def _check_rung(config: Config) -> None:
    renter = config.renter
    for name in ("attestation_policy", "attestation_collateral"):
        if renter.rung == ATTESTED and getattr(renter, name) is None:
            raise error(
                "config_invalid", detail=f"renter.rung is 4 and renter.{name} is not set - at `$.renter.{name}`"
            )


def _describe(annotation: Any) -> str:
    """The type for a person, with its bounds."""
    metas = list(_metas(annotation))
    bare = _bare(annotation)
    title = next((meta.title for meta in metas if meta.title), None)
    if get_origin(bare) is tuple:
        return f"list of {title or _name(get_args(bare)[0])}"
    if title:
        return title
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    high = next((meta.le for meta in metas if meta.le is not None), None)
    bounds = f", {low} to {high}" if high is not None else f", at least {low}" if low is not None else ""
    return _name(bare) + bounds


def _metas(annotation: Any) -> Iterator[msgspec.Meta]:
    """Its own and those of the types inside."""
    for part in get_args(annotation):
        if isinstance(part, msgspec.Meta):
            yield part
        else:
            yield from _metas(part)


def _bare(annotation: Any) -> Any:
    """Without annotations and without `None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return _bare(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _name(bare: Any) -> str:
    if get_origin(bare) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(bare))
    return {bool: "true or false", int: "integer", str: "text", Path: "path"}[bare]
