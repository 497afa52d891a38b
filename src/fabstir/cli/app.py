"""The root of the command line: which commands there are, and how each one ends.

A command is one row of COMMANDS and one file. It is imported when it is called, so that no command pays for another's
libraries; it raises FabstirError and lets it pass, since telling a person about it is done here, once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from cyclopts import App, CycloptsError, Group

import fabstir
from fabstir.cli.frame import JSON_FLAG, print_error
from fabstir.domain.errors import FabstirError

USAGE: Final = 2
INTERRUPTED: Final = 130

MARKET: Final = Group("Market", sort_key=1)
OPERATE: Final = Group("Operate a market", sort_key=2)
LOOK_UP: Final = Group("Look things up", sort_key=3)


class Command(NamedTuple):
    """One row. `place` is `module:attribute` of a function, or of an App with subcommands whose name is `name`.

    `help` is the line in the list of commands, which is printed without importing them; the command's own help is its docstring.
    """

    name: str
    place: str
    help: str
    group: Group


COMMANDS: Final = (
    Command("demo", "fabstir.cli.demo:demo", "The whole market in one go, with a host that dies.", MARKET),
    Command("devnet", "fabstir.cli.devnet:devnet", "A local chain with the market on it.", MARKET),
    Command("host", "fabstir.cli.host:app", "Serve a model and be paid for it.", MARKET),
    Command("chat", "fabstir.cli.chat:chat", "Talk to a model of the market.", MARKET),
    Command("prompt", "fabstir.cli.prompt:app", "Have an answer made without waiting for it.", MARKET),
    Command("gateway", "fabstir.cli.gateway:app", "An endpoint for OpenAI's and Anthropic's clients here.", MARKET),
    Command("wallet", "fabstir.cli.wallet:app", "Keys and balances of a host, a renter or an arbiter.", MARKET),
    Command("earnings", "fabstir.cli.earnings:earnings", "What the host on this machine earned.", MARKET),
    Command("claims", "fabstir.cli.claims:claims", "What the host can still collect, and until when.", MARKET),
    Command("receipt", "fabstir.cli.receipts:app", "What is kept of your sessions, to show or have checked.", MARKET),
    Command("verify", "fabstir.cli.verify:app", "Check a receipt, a session or an attestation.", LOOK_UP),
    Command("dispute", "fabstir.cli.dispute:app", "Claims that are not decided, and what to do about one.", MARKET),
    Command(
        "deploy", "fabstir.cli.deploy:deploy", "The market's contracts onto a network, after a checklist.", OPERATE
    ),
    Command("model", "fabstir.cli.model:app", "What a weights file is on chain, and its registration.", OPERATE),
    Command("doctor", "fabstir.cli.doctor:app", "What is wrong, and what to do about it.", OPERATE),
    Command("explain", "fabstir.cli.explain:app", "What an error code or an ending of a session means.", LOOK_UP),
    Command("config", "fabstir.cli.config:app", "The settings in force.", LOOK_UP),
    Command("version", "fabstir.cli.version:version", "The version of this package.", LOOK_UP),
)


def root(*, listing: bool = False) -> App:
    """The command line, with every command of COMMANDS. As a `listing` it describes them by their rows alone."""
    app = App(
        name="fabstir",
        help="Owners of GPUs serve language models directly to renters: metered, receipted, proven and paid on chain.",
        help_epilogue="Every command takes --json. Settings: docs/reference/configuration.md. Errors: fabstir explain error CODE.",
        version=fabstir.__version__,
        group_commands=MARKET,
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=9)
    for order, command in enumerate(COMMANDS):
        described = command.help if listing else None
        app.command(command.place, name=command.name, help=described, group=command.group, sort_key=order)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    app = root(listing=not any(command.name in arguments[:1] for command in COMMANDS))
    try:
        result = app(list(arguments), exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return USAGE  # already told, on stderr
    except FabstirError as refused:
        print_error(refused, as_json=JSON_FLAG in arguments)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else 0
