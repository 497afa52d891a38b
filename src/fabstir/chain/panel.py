"""A panel of verifiers as a step of a deployment: its address follows from the market, its members and its threshold.

Pure. Whoever makes the same panel again finds it at the same address. Sends nothing (`panel_calls`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fabstir.chain import artifacts, bindings
from fabstir.chain.deployment import Create, Probe, create2_address, selector, word
from fabstir.domain.ids import ZERO_HASH, Address
from fabstir.protocol.panel import panel_members

CONTRACT: Final = "ArbiterPanel"


def panel_creation(market: Address, named: Iterable[Address], threshold: int) -> Create:
    """The panel's contract. Raises PeerFault (`request_invalid`) where there can be no such panel."""
    code = bindings.ArbiterPanel.deploy_data(market, panel_members(named, threshold), threshold)
    place = create2_address(ZERO_HASH, code)
    fixed = {"market": word(market), "threshold": word(threshold)}
    return Create(
        name=CONTRACT,
        address=place,
        data=ZERO_HASH + code,
        arguments=code[len(artifacts.load(CONTRACT).bytecode) :],
        probes=tuple(
            Probe(what=f"{CONTRACT}.{getter}", to=place, data=selector(f"{getter}()"), word=value)
            for getter, value in fixed.items()
        ),
    )
