"""`fabstir chat`: talk to a model of the market from the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fabstir.cli.currency import Currency, currency_of
from fabstir.cli.frame import CONFIGURED, Configured, with_token

if TYPE_CHECKING:
    from fabstir.renter.session import Session


def chat(
    question: Annotated[str | None, Parameter(help="Ask this and end. Without it: a conversation.")] = None,
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="Name or id of a model. Unset: the only one, or the first by name.")
    ] = None,
    token: Annotated[
        str | None, Parameter(help="Pay with `usdc`, `eth` or a token's address. Unset: renter.token.")
    ] = None,
    budget: Annotated[int | None, Parameter(help="Base units that may be spent; 1000000 is 1 USDC, or wei.")] = None,
    max_tokens: Annotated[int, Parameter(help="Longest answer.")] = 512,
    temperature: Annotated[float, Parameter(help="0 is always the likeliest token.")] = 0.8,
    common: Configured = CONFIGURED,
) -> None:
    """Ask a host of the market; the deposit is paid when the first question is asked, and what is left of it comes back at the end.

    In a conversation, `/clear` forgets what was said, here and at the host; an empty line or Ctrl-D ends it.
    """
    from fabstir.bootstrap.renter import renter_market
    from fabstir.cli.running import run

    config = with_token(common.settings(quietly=True), token)
    options = {"max_tokens": max_tokens, "temperature": temperature}

    async def main() -> None:
        async with renter_market(config) as market:
            name = model or (await market.first_model()).name
            async with market.session(name, budget=budget) as session:
                if question is not None:
                    await _one(session, question, options, common)
                else:
                    await _talk(session, name, options, currency_of(market.token, market.usdc))

    run(main())


async def _one(session: Session, question: str, options: dict[str, Any], common: Configured) -> None:
    pieces = []
    async for piece in session.prompt(question, **options):
        pieces.append(piece)
        if not common.json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    report = session.last
    if common.json and report is not None:
        common.show(
            {"answer": "".join(pieces), "tokens": report.completion_tokens, "finish": report.finish_reason}, str
        )
    else:
        sys.stdout.write("\n")


async def _talk(session: Session, model: str, options: dict[str, Any], currency: Currency) -> None:
    from fabstir.domain.errors import PeerFault

    print(f"Talking to {model}. An empty line ends it, /clear begins anew.", file=sys.stderr)
    while True:
        try:
            question = (await asyncio.to_thread(input, "> ")).strip()
        except EOFError:
            return
        if not question:
            return
        if question == "/clear":
            await session.clear()
            continue
        try:
            async for piece in session.prompt(question, **options):
                sys.stdout.write(piece)
                sys.stdout.flush()
        except PeerFault as fault:  # of these words: the conversation goes on without them
            print(fault, file=sys.stderr)
            continue
        report = session.last
        sys.stdout.write("\n")
        if report is not None:
            left = currency.text(session.budget_left)
            print(
                f"[{report.completion_tokens} tokens, {report.tokens_per_s:.0f}/s, {left} not deposited]",
                file=sys.stderr,
            )
