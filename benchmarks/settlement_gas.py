"""Claim: a whole paid session settles on chain for hardly more gas than the lean channel of the design study, although it checks more.

Both contracts are measured in one run on one anvil, each call the median of several, with warm ledgers (a host's first credit in a
token costs 17,100 gas more, once). The peer, benchmarks/peers/LeanMarket.sol, has no proof policy, no exposure bound, no dispute and
no commitment before the challenge; its proof is one signature, ours a real ezkl proof of 256 records. The second peer is x402 `exact`,
which sends one transfer for each paid request: measured here on the same token, beside what the study measured with the real
facilitator. Needs contracts/node_modules.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contracts/tools"))

from common import main
from settlement_epoch import SESSIONS, epochs
from settlement_sides import HOST, RENTER, TOKENS, TRANSCRIPT, TREASURY, Chain, Measurement, Ours, Peer, pad, word
from settlement_steps import Prompts, deposits, enlist, proven_sessions, x402_exact

import build
from fabstir.chain.anvil import find_anvil
from fabstir.chain.deploy import Operator
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, Devnet
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ProofPolicy
from fabstir.ops import logging, paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import LogSection
from fabstir.proofs.process import EzklProver
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.signing import keccak

PEER_SOURCE: Final = Path(__file__).parent / "peers/LeanMarket.sol"
X402_STUDY: Final = {"x402_exact_study_gas": 68_277, "x402_exact_first_study_gas": 85_000}
"""One settled request, as the design study measured it with the x402 facilitator on anvil; the first one of a payer."""
LEAN_STUDY: Final = {"session_eth_lean_study_gas": 123_948, "session_usdc_lean_study_gas": 151_189}
"""The lean channel as the design study reports it: another optimizer setting, otherwise the same contract."""
REQUIRED: Final = ("open", "commit_proof", "submit_proof", "close_by_host")
CLAIMED: Final = ("claim_proven", "settle_claim")
DISPUTED: Final = ("claim_proven", "dispute", "answer_64_records", "rule_for_host")
PROMPTED: Final = ("prompt_post", "prompt_claim", "prompt_complete")
Figures = dict[str, int]


async def signed_checkpoint(chain: Chain, run: Measurement) -> None:
    """The peer's proof: the host's signature over a hash. It pays at once, so no voucher follows."""
    terms = await run.opened(chain.info.usdc, "usdc")
    words = word(CHAIN_ID) + pad(run.side.address) + run.job(terms) + word(0) + word(TOKENS) + TRANSCRIPT
    submit = run.side.function("submitProof", "Terms", "uint64", "bytes32", "bytes")
    await run.note("submit_proof", HOST, submit.encode(terms, TOKENS, TRANSCRIPT, HOST.sign(keccak(words))))
    await run.close_by_host("close_after_proof_usdc", (terms, 0, 0, bytes(32), b""))


def compile_peer() -> dict[str, Any]:
    """From source, by the pinned compiler, with the settings of our own contracts."""
    name = "peers/LeanMarket.sol"
    return dict(build.compile_sources([], {name: PEER_SOURCE.read_text()})["contracts"][name])


async def deploy_peer(chain: Chain, compiled: dict[str, Any]) -> Address:
    """The lean channel with its verifier."""

    async def create(contract: str, *arguments: Address) -> Address:
        code = bytes.fromhex(compiled[contract]["evm"]["bytecode"]["object"])
        receipt = await chain.send(HOST, None, code + b"".join(pad(argument) for argument in arguments))
        return Address(bytes.fromhex(receipt["contractAddress"][2:]))

    return await create("LeanMarket", TREASURY.address, await create("SignedVerifier", HOST.address))


async def run_both(rpc: JsonRpc, prover: EzklProver, rounds: int) -> dict[str, Any]:
    """Deploy both, measure both, report."""
    compiling = asyncio.create_task(asyncio.to_thread(compile_peer))  # as long as all the rest
    operator = Operator(rpc, DEV_KEYS[0])
    chain = Chain(rpc, await operator.deploy(prover.circuit_id, treasury=TREASURY.address))
    for account in (RENTER, HOST):
        await operator.mint(chain.info, account.address, BaseUnits(10**15))
    model = await operator.approve_model(
        chain.info, ModelIdentity(repository="org/model", file="model.gguf", sha256=Hash32(keccak(b"weights")))
    )
    await enlist(chain, model)
    ours = Measurement(chain, Ours(chain.info.market))
    await ours.everything(rounds)
    for _ in range(rounds):
        await deposits(ours)
        await x402_exact(ours)
        for token, kind in chain.currencies():
            await Prompts(ours, model, token, kind).lives()
    policies = {policy: (await proven_sessions(chain, prover, policy)).medians() for policy in ProofPolicy}
    epoch = (await epochs(chain, prover)).medians()
    peer = Measurement(chain, Peer(await deploy_peer(chain, await compiling)))
    await peer.everything(rounds)
    await signed_checkpoint(chain, peer)
    for run in (ours, peer):
        await run.withdrawals()
    return report(ours.medians(), policies, peer.medians(), rounds) | by_epoch(epoch)


def report(ours: Figures, policies: dict[ProofPolicy, Figures], peer: Figures, rounds: int) -> dict[str, Any]:
    """The session in USDC as the claim, whole ways and every step beside it."""
    required, fallback = policies[ProofPolicy.REQUIRED], policies[ProofPolicy.FALLBACK]
    sessions = [side["open_usdc"] + side["close_by_host_usdc"] for side in (ours, peer)]
    figures = {
        f"{name}{step}_gas": value
        for name, side in (("", ours), ("required_", required), ("fallback_", fallback), ("peer_", peer))
        for step, value in side.items()
    }
    return {
        "claim": "gas of a whole session in USDC (open, closeByHost with the last voucher and refund), against the lean channel",
        "ours": sessions[0],
        "peer": sessions[1],
        "ratio": round(sessions[0] / sessions[1], 4),
        "unit": "gas",
        "n": rounds,
        **LEAN_STUDY,
        "session_eth_gas": ours["open_eth"] + ours["close_by_host_eth"],
        "session_eth_peer_gas": peer["open_eth"] + peer["close_by_host_eth"],
        "session_signed_checkpoint_usdc_peer_gas": peer["open_usdc"] + peer["submit_proof"] + peer["close_after_proof_usdc"],
        **ways(ours, required),
        **against_x402(sessions[0], ours),
        **dict(sorted(figures.items())),
    }  # fmt: skip


def ways(ours: Figures, required: Figures) -> Figures:
    """Sums over steps, in both currencies."""

    def total(steps: tuple[str, ...], side: Figures, kind: str) -> int:
        return sum(side[step] if step in side else side[f"{step}_{kind}"] for step in steps)

    return {
        f"{name}_{kind}_gas": total(steps, side, kind)
        for name, steps, side in (
            ("session_required_ezkl", REQUIRED, required),
            ("claim_paid", CLAIMED, required),
            ("claim_disputed_and_ruled", DISPUTED, required),
            ("prompt_completed", PROMPTED, ours),
        )
        for kind in ("eth", "usdc")
    }


def by_epoch(epoch: Figures) -> Figures:
    """Commitment and proof shared by all sessions of an epoch, and the redemption of each; opening and closing come to it."""
    shared = (epoch["epoch_commit"] + epoch["epoch_prove"]) // SESSIONS
    steps = {f"{step}_gas": value for step, value in sorted(epoch.items()) if not step.startswith("open")}
    settled = {kind: shared + epoch[f"redeem_by_epoch_{SESSIONS}_{kind}"] for kind in ("eth", "usdc")}
    return steps | {f"session_settled_by_epoch_of_{SESSIONS}_{kind}_gas": gas for kind, gas in settled.items()}


def against_x402(session: int, ours: Figures) -> dict[str, Any]:
    """`exact` pays gas for each request; a session once for all of them, however many they are."""
    request = ours["x402_exact_usdc"]
    return {
        **X402_STUDY,
        "session_in_x402_requests": round(session / request, 2),
        "session_in_x402_study_requests": round(session / X402_STUDY["x402_exact_study_gas"], 2),
        "paid_requests_a_session_replaces_at_least": session // request + 1,
        "redeem_25_in_x402_requests": round(ours["redeem_25_usdc"] / request, 2),
        "gas_per_request_of_100_in_one_session": session // 100,
    }


async def measure(quick: bool) -> dict[str, Any]:
    """Start chain and prover, stop them whatever happens."""
    logging.configure(LogSection(level="error"))
    prover = EzklProver(chain_id=CHAIN_ID, cache=paths.cache_dir())
    await prover.start()
    try:
        async with Devnet(await find_anvil(paths.cache_dir())) as net:
            rpc = JsonRpc([net.url], SystemClock())
            try:
                return await run_both(rpc, prover, 1 if quick else 5)
            finally:
                await rpc.close()
    finally:
        await prover.stop()


if __name__ == "__main__":
    main(lambda quick: asyncio.run(measure(quick)), __doc__ or "")
