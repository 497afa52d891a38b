"""What all commands share: the options that each takes, and the two ways to print, for people and as one JSON object.

In JSON nothing but the object goes to stdout, an error too: `{"error": {...}}`. Progress and errors for people go to
stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, address
from fabstir.domain.money import MAX_AMOUNT, BaseUnits

if TYPE_CHECKING:
    from fabstir.chain.checks import Check
    from fabstir.ops.config import Config

JSON_FLAG: Final = "--json"
USDC_DECIMALS: Final = 6


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """The options of every command; take it as the keyword argument `common: Common = COMMON`."""

    json: Annotated[bool, Parameter(negative="", help="Print one JSON object and nothing else.")] = False

    def show(self, data: Any, for_people: Callable[[], object]) -> None:
        """Print `data` as one JSON object, or what `for_people()` returns: text, or something that rich can render."""
        if self.json:
            sys.stdout.write(msgspec.json.encode(data, enc_hook=str).decode() + "\n")
            return
        shown = for_people()
        if isinstance(shown, str):
            sys.stdout.write(shown + "\n")
        else:
            from rich.console import Console

            Console().print(shown)


@Parameter(name="*")
@dataclass(frozen=True)
class Configured(Common):
    """The options of a command that reads the settings: `common: Configured = CONFIGURED`."""

    config: Annotated[
        Path | None, Parameter(help="Another configuration file than config.toml in the configuration directory.")
    ] = None

    def settings(self, *, quietly: bool = False) -> Config:
        """The settings in force, with the log set up as they say. `quietly`: a command that talks to a person logs no ordinary
        events, unless `debug` is wanted. Raises LocalFault.
        """
        from fabstir.ops import logging, settings

        config = settings.load(self.config)
        level = "warning" if quietly and config.log.level == "info" else config.log.level
        logging.configure(msgspec.structs.replace(config.log, level=level))
        return config


COMMON: Final = Common()
CONFIGURED: Final = Configured()


def with_token(config: Config, token: str | None) -> Config:
    """The settings, with what is paid with as an option says. Raises LocalFault (`config_invalid`)."""
    from fabstir.ops import settings

    return config if token is None else settings.changed(config, "renter", "token", token.lower())


def address_option(option: str, text: str | None) -> Address | None:
    """The address that was given with `option`. Raises PeerFault (`request_invalid`) where it is none."""
    return None if text is None else address_argument(option, text)


def address_argument(name: str, text: str) -> Address:
    """The address that was given as `name`. Raises PeerFault (`request_invalid`) where it is none."""
    try:
        return address(text.lower())
    except ValueError as wrong:
        raise error("request_invalid", f"{name} {text!r} is no address", "Give 0x and 40 digits.") from wrong


def usdc_amount(text: str) -> BaseUnits:
    """Base units of an amount like `100` or `2.50`. Raises PeerFault (`request_invalid`)."""
    try:
        scaled = Decimal(text).scaleb(USDC_DECIMALS)
    except InvalidOperation:
        scaled = Decimal("NaN")
    if not scaled.is_finite() or not 0 <= scaled <= MAX_AMOUNT or scaled != scaled.to_integral_value():
        raise error("request_invalid", f"{text!r} is no amount with at most 6 decimals", "Give a number like 2.50.")
    return BaseUnits(int(scaled))


def checks_text(checks: Sequence[Check]) -> str:
    """One line for each, and below those that are not well why it matters and what to do."""
    lines = []
    for item in checks:
        lines.append(f"  {item.verdict:8} {item.name}: {item.measured}")
        if item.verdict in ("warn", "fail"):
            lines += [f"           {text}" for text in (item.why, f"Next: {item.next_step}") if text]
    return "\n".join(lines)


def print_error(refused: FabstirError, *, as_json: bool) -> None:
    """Code, what happened, what was measured, and what to do."""
    if as_json:
        told = {
            "code": refused.code,
            "message": refused.message,
            "detail": refused.detail,
            "next_step": refused.next_step,
            "retryable": refused.retryable,
        }
        sys.stdout.write(msgspec.json.encode({"error": told}).decode() + "\n")
        return
    lines = [f"Error {refused.code}: {refused.message}."]
    if refused.detail:
        lines.append(f"  {refused.detail}")
    if refused.next_step:
        lines.append(f"  Next: {refused.next_step}")
    sys.stderr.write("\n".join(lines) + "\n")
