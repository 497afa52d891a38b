"""`fabstir prompt ask|status|result|cancel|refund|list`: answers that nobody has to wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.ids import hash32, to_hex

if TYPE_CHECKING:
    from fabstir.renter.market import Market
    from fabstir.renter.prompts import Order, OrderResult, OrderStatus

app = App(name="prompt", help="Have an answer made without waiting for it.", group_commands="Commands")

Id = Annotated[str, Parameter(help="As `fabstir prompt ask` printed it, or its beginning.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Bounds:
    """What an answer may cost, and who may give it."""

    max_tokens: Annotated[int, Parameter(help="Longest answer; it is what is deposited for, 4096 at most.")] = 512
    max_price: Annotated[
        int | None, Parameter(help="Most base units for 1,000,000 tokens. Unset: that of the dearest host asked.")
    ] = None
    deadline: Annotated[int, Parameter(help="Seconds from now after which the money can be taken back.")] = 3_600
    host: Annotated[list[str] | None, Parameter(help="Only this host's address; may be given several times.")] = None


NO_BOUNDS: Final = Bounds()


@app.command
async def ask(
    content: Annotated[str, Parameter(help="What to ask.")],
    /,
    *,
    model: Annotated[str | None, Parameter(help="Name or id. Unset: the only one, or the first by name.")] = None,
    fallback: Annotated[
        bool,
        Parameter(negative="", help="Pay by signing for the answer when it is fetched, whatever `renter.policy` says."),
    ] = False,
    wait: Annotated[bool, Parameter(negative="", help="Wait for the answer and print it.")] = False,
    bounds: Bounds = NO_BOUNDS,
    common: Configured = CONFIGURED,
) -> None:
    """Seal a question for hosts of the market, deposit for the longest answer, and end.

    A host claims it, answers, and is paid for the tokens of the answer; the rest of the deposit comes back at once. Nobody but these
    hosts can read the question, nobody but you the answer.
    """
    from fabstir.domain.ids import address
    from fabstir.domain.money import PricePerMTok
    from fabstir.domain.terms import ProofPolicy
    from fabstir.renter.prompts import PromptOptions

    async with _market(common) as market:
        order = await market.post_prompt(
            model=model or (await market.first_model()).model_id,
            content=content,
            max_tokens=bounds.max_tokens,
            max_price=None if bounds.max_price is None else PricePerMTok(bounds.max_price),
            deadline=bounds.deadline,
            hosts=None if bounds.host is None else [address(text.lower()) for text in bounds.host],
            options=PromptOptions(policy=ProofPolicy.FALLBACK if fallback else None),
        )
        if wait:
            _show_result(common, await order.result())
        else:
            _show(common, await order.status())


@app.command
async def status(prompt: Id, /, *, common: Configured = CONFIGURED) -> None:
    """Do what is due for a job, and tell where it stands."""
    async with _market(common) as market:
        _show(common, await _find(market, prompt).status())


@app.command
async def result(
    prompt: Id,
    /,
    *,
    wait: Annotated[bool, Parameter(negative="", help="Wait until it is there.")] = False,
    common: Configured = CONFIGURED,
) -> None:
    """Download, check and print the answer of a job."""
    async with _market(common) as market:
        order = _find(market, prompt)
        if not wait:
            await order.status()
        _show_result(common, await (order.result() if wait else order.result_now()))


@app.command
async def cancel(prompt: Id, /, *, common: Configured = CONFIGURED) -> None:
    """Take the money back, unless a host works on it: then it tells until when, and nothing happens."""
    async with _market(common) as market:
        _show(common, await _find(market, prompt).cancel())


@app.command
async def refund(prompt: Id, /, *, common: Configured = CONFIGURED) -> None:
    """Take the money back after the deadline."""
    async with _market(common) as market:
        _show(common, await _find(market, prompt).refund())


@app.command(name="list")
async def list_(*, common: Configured = CONFIGURED) -> None:
    """Every job of this renter, oldest first, after doing what is due for each."""
    async with _market(common) as market:
        found = [await order.status() for order in market.orders]
        lines = [f"{one.prompt}  {one.stage:9} {one.board:9} {one.ended}" for one in found]
        common.show({"prompts": [msgspec.to_builtins(one) for one in found]}, lambda: "\n".join(lines) or "None.")


@asynccontextmanager
async def _market(common: Configured) -> AsyncIterator[Market]:
    from fabstir.bootstrap.renter import renter_market

    async with renter_market(common.settings(quietly=True), prompts=True) as market:
        yield market


def _find(market: Market, prompt: str) -> Order:
    """By its id, or the beginning of it. Raises Refused (`prompt_unknown`)."""
    from fabstir.domain.errors import error
    from fabstir.domain.prompts import PromptId

    found = [order for order in market.orders if to_hex(order.id).startswith(prompt.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise error("prompt_unknown", f"{len(found)} jobs begin with {prompt[:66]}")
    try:
        return market.order(PromptId(hash32(prompt)))
    except ValueError as wrong:
        raise error("prompt_unknown", prompt[:66]) from wrong


def _show(common: Configured, found: OrderStatus) -> None:
    common.show(found, lambda: "\n".join(_lines(found)))


def _lines(found: OrderStatus) -> list[str]:
    data: dict[str, Any] = msgspec.to_builtins(found)
    return [f"  {name:10} {_text(value)}" for name, value in data.items() if value not in ("", 0, "0", [], ())]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _show_result(common: Configured, found: OrderResult) -> None:
    told = {
        "answer": found.text,
        "finish": found.finish_reason,
        "tokens": found.tokens,
        "price": str(found.price),
        "host": to_hex(found.host),
    }
    common.show(told, lambda: found.text)
