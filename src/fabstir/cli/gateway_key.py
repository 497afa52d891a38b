"""`fabstir gateway key`: the API keys of the gateway. A key is printed once, when it is made."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from fabstir.cli.frame import CONFIGURED, Configured
from fabstir.domain.errors import error
from fabstir.domain.money import MAX_AMOUNT, BaseUnits

app = App(name="key", help="Who may use the gateway, for how much.")


@app.command
def add(
    name: Annotated[str, Parameter(help="What it is called: letters, digits, `.`, `_`, `-`.")],
    /,
    *,
    budget: Annotated[
        str | None, Parameter(help="Base units that its requests may cost, ever. Unset: what the gateway has.")
    ] = None,
    per_minute: Annotated[int | None, Parameter(help="Requests in any 60 seconds. Unset: no bound.")] = None,
    model: Annotated[
        tuple[str, ...], Parameter(help="Only this model, by name or id; several times for several.", negative="")
    ] = (),
    common: Configured = CONFIGURED,
) -> None:
    """Make an API key and print it, once. The file has its hash only.

    From the first key on the gateway answers nobody without one. A gateway that runs sees the key at once.
    """
    from fabstir.bootstrap.gateway import keys_file
    from fabstir.renter.gateway_keys import add_key

    path = keys_file(common.settings(quietly=True))
    card, secret = add_key(
        path, name, budget=_amount(budget), per_minute=per_minute, models=tuple(model) if model else None
    )
    data = {"name": card.name, "id": card.id, "key": secret, "budget": card.budget, "file": str(path)}
    common.show(data, lambda: f"{secret}\n\nThis is the key of {card.name}. It is not shown again.")


@app.command(name="list")
def list_(*, common: Configured = CONFIGURED) -> None:
    """Each key with its bounds and what it has cost, in base units: signed for, or settled."""
    from fabstir.bootstrap.gateway import keys_with_spending

    rows = [
        {
            "name": card.name,
            "id": card.id,
            "budget": card.budget,
            "spent": str(spent),
            "per_minute": card.per_minute,
            "models": card.models,
        }
        for card, spent in keys_with_spending(common.settings(quietly=True))
    ]
    common.show({"keys": rows}, lambda: "\n".join(map(_line, rows)) or "There are no keys: everyone here is answered.")


@app.command
def revoke(name: Annotated[str, Parameter(help="Its name or id.")], /, *, common: Configured = CONFIGURED) -> None:
    """Take a key away. A gateway that runs refuses it at once; what it is answered at the moment is finished.

    With the last key gone the gateway answers nobody, until there is a new one or the file is removed.
    """
    from fabstir.bootstrap.gateway import keys_file
    from fabstir.renter.gateway_keys import revoke_key

    card = revoke_key(keys_file(common.settings(quietly=True)), name)
    common.show({"name": card.name, "id": card.id}, lambda: f"The key of {card.name} is not taken any more.")


def _amount(text: str | None) -> BaseUnits | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_AMOUNT):
        raise error("request_invalid", f"--budget {text[:40]!r}: a whole number of base units is wanted, like 5000000")
    return BaseUnits(int(text))


def _line(row: dict[str, Any]) -> str:
    budget = f" of {row['budget']}" if row["budget"] is not None else ""
    rate = f", {row['per_minute']} a minute" if row["per_minute"] else ""
    models = f", only {', '.join(row['models'])}" if row["models"] else ""
    return f"{row['name']} ({row['id']}): spent {row['spent']}{budget}{rate}{models}"
