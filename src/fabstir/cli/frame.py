"""What all commands share: the options that each takes, and the two ways to print, for people and as one JSON object.

In JSON nothing but the object goes to stdout, an error too: `{"error": {...}}`. Progress and errors for people go to
stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from fabstir.domain.errors import FabstirError

if TYPE_CHECKING:
    from fabstir.ops.config import Config

JSON_FLAG: Final = "--json"


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
