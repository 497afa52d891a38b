"""What a node writes down while it serves is what its accounts need."""

from __future__ import annotations

from tests.host.world import MODEL, WALLET, Renter, World

from fabstir.protocol.earnings import entries_of, grouped
from fabstir.protocol.host_log import decode_event


async def test_a_served_job_has_its_model_s_name_its_sessions_and_its_tokens(world: World) -> None:
    """Two sessions of one job, the first on two connections; of what was said nothing is in the log."""
    renter = await world.renter()
    await renter.chat("one two")
    await renter.wire.close("bye")  # type: ignore[attr-defined]
    again = Renter(world.connect(), renter.terms).continues(renter)
    await again.open(again.resume())
    await again.chat("three four")
    await again.wire.close("bye")  # type: ignore[attr-defined]
    other = Renter(world.connect(), renter.terms).continues(again)
    await other.open(other.resume(session_id="other", auth=other.auth(session="other")))
    await other.ask("five", session_id="other")
    await other.hear(ack=False)
    log = [decode_event(data) for data in await world.journal.read("job:" + renter.job.hex())]
    (row,) = grouped(entries_of(log), "session")
    ledger = world.ledger(renter)
    assert (row.model, row.model_id, row.renter) == (world.engine.info.name, MODEL, WALLET.address)
    assert (row.sessions, row.served, row.acknowledged) == (2, ledger.served, ledger.acknowledged)
    assert (row.status, row.gross, row.outstanding) == ("open", 0, ledger.amount(ledger.acknowledged))
    assert b"one two" not in b"".join(await world.journal.read("job:" + renter.job.hex()))
