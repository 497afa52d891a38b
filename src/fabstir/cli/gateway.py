"""`fabstir gateway`: an endpoint for OpenAI's and Anthropic's clients on this machine, that pays behind the scenes."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured, with_token
from fabstir.cli.gateway_key import app as key_app

app = App(name="gateway", group_commands="Commands")
app.command(key_app)


@app.default
def gateway(
    *,
    token: Annotated[
        str | None, Parameter(help="Pay with `usdc`, `eth` or a token's address. Unset: renter.token.")
    ] = None,
    common: Configured = CONFIGURED,
) -> None:
    """Serve OpenAI's and Anthropic's dialects on this machine until Ctrl-C; answers come from the market's hosts and are paid from
    `renter.budget`.

    Point any OpenAI client at the printed base URL, an Anthropic client at it without `/v1`.
    What is not spent of the deposits comes back when it ends.
    """
    from fabstir.bootstrap.gateway import run_gateway
    from fabstir.cli.running import run_until_stopped

    config = with_token(common.settings(quietly=True), token)

    def ready(url: str) -> None:
        base = f"{url}/v1"
        common.show(
            {"base_url": base},
            lambda: f"The gateway serves {base}, for Anthropic's clients {url}. Ctrl-C ends it.\n\n{examples(base)}",
        )
        sys.stdout.flush()

    async def main(stop: asyncio.Event) -> None:
        await run_gateway(config, stop, ready)

    run_until_stopped(main)


def examples(base_url: str, model: str = "tiny-chat") -> str:
    """Two ways to try it, ready to paste."""
    return (
        f"curl -s {base_url}/chat/completions -H 'content-type: application/json' \\\n"
        f'  -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of Peru?"}}]}}\'\n\n'
        f"from openai import OpenAI\n"
        f'client = OpenAI(base_url="{base_url}", api_key="unused")\n'
        f'answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])\n'
        f"print(answer.choices[0].message.content)"
    )
