"""What a host tells over HTTP: every value comes from the node, every refusal has the one shape."""

from __future__ import annotations

import msgspec
import pytest
from tests.api.served import Served, serving
from tests.host.table_chain import HOST, INFO, USDC
from tests.host.world import MODEL, World, some_terms

from fabstir.domain.ids import to_hex
from fabstir.ports.chain import ChainCondition, EndpointState
from fabstir.protocol.offer import WireOffer
from fabstir.testing.prover import CIRCUIT_ID


async def test_health_shows_every_part(served: Served) -> None:
    """Each part by its own word, with what a person needs to look further."""
    await served.renter()
    status, health = await served.get("/health")
    assert status == 200
    assert health.pop("version") and health.pop("uptime_s") == 0
    ok = {"status": "ok", "reason": ""}
    assert health == {
        "status": "ok",
        "engine": {**ok, "model": "scripted", "restarts": 0},
        "models": [
            {
                **ok,
                "name": "scripted",
                "model_id": to_hex(MODEL),
                "running": 0,
                "waiting": 0,
                "wait_s": 0.0,
                "engines": [{**ok, "name": "engine", "active": 0, "places": 8, "restarts": 0}],
            }
        ],
        "chain": {**ok, "chain_id": 31337, "block": 7, "block_age_s": 0, "endpoints": []},
        "sending": {**ok, "waiting": 0},
        "journal": ok,
        "prover": ok | {"circuit": "test/hash", "circuit_id": to_hex(CIRCUIT_ID), "weaker": 0},
        "registration": {"status": "off", "reason": ""},
        "settings": {"status": "off", "reason": ""},
        "machine": {
            "status": "off",
            "reason": "",
            "cpu": 0.0,
            "memory_available_mb": 0,
            "resident_mb": 0,
            "disk_free_mb": 0,
            "gpus": [],
            "no_gpus": "",
        },
        "sessions": {"open": 1, "generating": 0, "max": 64},
        "prompts": {
            "status": "off",
            "reason": "",
            "queued": 0,
            "working": 0,
            "slots": 0,
            "unpaid": "0",
            "tokens_per_s": 0.0,
        },
        "claims": {"status": "off", "reason": "", "held": 0, "disputed": 0, "expiring": 0, "problems": 0},
        "p2p": {
            "status": "off",
            "reason": "",
            "node": "",
            "addresses": [],
            "peers": 0,
            "known": 0,
            "providing": 0,
            "restarts": 0,
            "announced_s": None,
        },
    }


async def test_a_prover_that_is_down_is_no_reason_to_turn_renters_away(served: Served) -> None:
    """Proofs can be made later: `degraded` with 200, and sessions go on."""
    served.world.prover.unavailable = True
    status, health = await served.get("/health")
    assert (status, health["status"], health["prover"]["status"]) == (200, "degraded", "down")
    assert health["prover"]["reason"]
    await served.renter()


async def test_endpoints_show_what_each_of_them_does(served: Served) -> None:
    """By place and origin; also while none of them answers."""
    states = (
        EndpointState(name="0 https://one.example", state="rate_limited", reason="HTTP 429", block=7),
        EndpointState(name="1 https://two.example", state="lagging", reason="20 blocks behind", block=6),
    )
    served.world.chain.state = ChainCondition(endpoints=states)
    served.world.chain.reachable = False
    _, health = await served.get("/health")
    assert health["chain"]["status"] == "down"
    assert health["chain"]["endpoints"] == [msgspec.to_builtins(state) for state in states]


async def test_fees_above_the_bound_are_shown_and_sessions_go_on(served: Served) -> None:
    """Transactions wait: `degraded` with 200, how many wait, and why."""
    served.world.chain.state = ChainCondition(sending="fee_too_high", reason="50 gwei, the bound is 10", waiting=3)
    status, health = await served.get("/health")
    assert (status, health["status"]) == (200, "degraded")
    assert health["sending"] == {"status": "fee_too_high", "reason": "50 gwei, the bound is 10", "waiting": 3}
    await served.renter()


async def test_a_key_that_is_in_use_elsewhere_lets_nobody_in(served: Served) -> None:
    """Nothing could be collected: 503, the reason in `sending`, and a new session is refused with `capacity`."""
    served.world.chain.state = ChainCondition(sending="key_in_use", reason="key_in_use: ...")
    status, health = await served.get("/health")
    assert (status, health["status"], health["sending"]["status"]) == (503, "failing", "key_in_use")
    stranger = await served.stranger()
    assert (await stranger.refused(stranger.init())).code == "capacity"


async def test_how_old_the_newest_block_is(served: Served) -> None:
    """The age is measured against this host's clock."""
    await served.world.clock.advance(42)
    _, health = await served.get("/health")
    assert health["chain"]["block_age_s"] == 42


async def test_models_have_openais_shape_and_a_price(served: Served) -> None:
    """A client that lists models finds `id` and `object`; a renter finds model id, price and context."""
    status, models = await served.get("/v1/models")
    assert status == 200
    assert models == {
        "object": "list",
        "data": [
            {
                "id": "scripted",
                "object": "model",
                "created": 1_800_000_000,
                "owned_by": to_hex(HOST.address),
                "model_id": to_hex(MODEL),
                "prices": [{"token": to_hex(USDC), "price_per_mtok": "200000"}],
                "context_size": 4096,
                "max_answer_tokens": 4096,
            }
        ],
    }


async def test_terms_made_from_the_offer_are_admitted() -> None:
    """What `GET /v1/offer` says is all that a renter needs: at exactly its bounds a session begins."""
    async with serving(World(exposure_max=33, min_deposit=777, bond_min=999, challenge_min=1234)) as served:
        status, body = await served.get("/v1/offer")
        assert status == 200
        offer = msgspec.convert(body, WireOffer).offer()
        assert (offer.host, offer.market.chain_id, offer.market.address) == (HOST.address, 31337, INFO.market)
        [payment] = offer.payments
        assert (payment.token, payment.relayed_from) == (USDC, 0)
        terms = some_terms(
            host=offer.host,
            token=payment.token,
            bond=payment.bond_min,
            model_id=offer.models[0].model_id,
            price=offer.models[0].prices[0].price,
            exposure=offer.exposure_max,
            challenge=offer.challenge_min,
            policy=offer.policies[-1],
            expires_at=1_800_000_000 + offer.min_seconds_left,
        )
        await served.renter(served.world.chain.open(terms, payment.min_deposit))


async def test_metrics_count_what_was_served(served: Served) -> None:
    """Prometheus' text format; tokens, answers, errors, and what is at stake now."""
    renter = await served.renter()
    await renter.chat("one two three")
    await renter.refused("garbage")
    await renter.ask("again")
    await renter.hear(ack=False)
    status, page = await served.get("/metrics")
    assert status == 200
    lines = page.splitlines()
    for line in (
        "fabstir_generation_tokens_total 10.0",
        "fabstir_acknowledged_tokens_total 6.0",
        "fabstir_unacknowledged_tokens 4.0",
        'fabstir_request_success_total{finish_reason="stop"} 2.0',
        'fabstir_request_failure_total{code="message_malformed"} 1.0',
        "fabstir_time_to_first_token_seconds_count 2.0",
        "fabstir_inter_token_latency_seconds_count 8.0",
        "fabstir_e2e_request_latency_seconds_count 2.0",
        "fabstir_num_requests_running 0.0",
        "fabstir_num_requests_waiting 0.0",
        "fabstir_sessions_open 1.0",
        "fabstir_connections_open 1.0",
    ):
        assert line in lines, line


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/nothing", "GET", 404), ("/health", "POST", 405), ("/v1/offer", "DELETE", 405)]
)
async def test_refusals_have_the_one_shape(served: Served, path: str, method: str, status: int) -> None:
    """Code, message, retryable, detail and next step, as in the session protocol."""
    found, body = await served.get(path, method)
    assert found == status
    assert body["type"] == "error" and body["code"] == "request_invalid" and body["retryable"] is False
    assert body["detail"] and body["next_step"]


async def test_a_fault_of_the_node_hides_its_details(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is `node_failed`; what was in the exception stays in the house."""

    async def broken() -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(served.world.node, "health", broken)
    status, body = await served.get("/health")
    assert (status, body["code"]) == (500, "node_failed")
    assert "secret" not in str(body)
