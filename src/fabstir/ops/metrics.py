"""What the node counts. Names follow the field: vLLM's for serving, with our prefix; money in base units.

Holds its own registry, so that two nodes in one process do not mix. No label has unbounded values: finish reasons,
error codes and parts are closed sets, checked here; sessions, jobs and accounts are never labels. Money is never added up
over currencies: each of its series has one token, `usdc`, `eth`, or the address of one that the operator took under an
earlier configuration. A value is a float, exact up to 2**53 base units: a sum of wei has fifteen right digits.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

import fabstir
from fabstir.domain.errors import CATALOGUE
from fabstir.domain.ids import ZERO_ADDRESS, Address, to_hex
from fabstir.ports.chain import TransactionEnd
from fabstir.ports.machine import MachineState

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
FINISH_REASONS: Final = ("stop", "length", "deposit", "cancelled", "interrupted")
"""As in the message `response`; `interrupted` is any other."""
PARTS: Final = ("chain", "engine", "prover", "journal")
PROMPT_OUTCOMES: Final = ("completed", "released", "lost", "expired")
CURRENCIES: Final = ("usdc", "eth")
"""What money is labelled with; of any other token the address."""

# vLLM's own buckets, so that dashboards made for it fit.
_FIRST_TOKEN: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_BETWEEN_TOKENS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
)
_REQUEST: Final = (
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
)
_PROOF: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the page and nobody draws them


class MoneyGauge:
    """Amounts as they are now, by token. Without a series until they are first known: 0 is an amount, too."""

    def __init__(self, gauge: Gauge, usdc: Address | None) -> None:
        self._gauge = gauge
        self._usdc = usdc
        self._shown = set(CURRENCIES)

    def show(self, amounts: Mapping[Address, int]) -> None:
        """All that there is: a token that is not among them has 0."""
        named = {currency(token, self._usdc): amount for token, amount in amounts.items()}
        self._shown |= named.keys()
        for name in self._shown:
            self._gauge.labels(name).set(named.get(name, 0))


class MoneyCounter:
    """Amounts that came in, by token. USDC and ETH begin at 0, so that the first amount is an increase."""

    def __init__(self, counter: Counter, usdc: Address | None) -> None:
        self._counter = counter
        self._usdc = usdc
        for name in CURRENCIES:
            counter.labels(name)

    def add(self, token: Address, amount: int) -> None:
        """So much more."""
        self._counter.labels(currency(token, self._usdc)).inc(amount)


class Metrics:
    """Every series of one node. Attributes are set directly where the thing happens: `metrics.generation_tokens.inc(n)`."""

    def __init__(self, usdc: Address | None = None) -> None:
        """`usdc`: the market's, which is shown by its name."""
        self.registry: Final = CollectorRegistry()
        self._usdc = usdc
        self._restarts = 0
        self._serving()
        self._money()
        self._prompts()
        self._parts()
        self._models()
        self._machine()

    def __repr__(self) -> str:
        return f"<Metrics {len(list(self.registry.collect()))} series>"

    def _serving(self) -> None:
        self._success = self._counter("request_success", "Answers that ended, by finish reason", "finish_reason")
        self._failure = self._counter("request_failure", "Messages that were answered with an error, by code", "code")
        for reason in FINISH_REASONS:
            self._success.labels(reason)
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of the answers that were made")
        self.prefix_cache_hits = self._counter(
            "prefix_cache_hits",
            "Prompt tokens that were not computed again, since an earlier prompt of the session had them",
        )
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated for renters")
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the prompt's arrival to the first token sent", _FIRST_TOKEN
        )
        self.inter_token_latency = self._histogram("inter_token_latency_seconds", "Between two tokens", _BETWEEN_TOKENS)
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "From the prompt's arrival to its place at an engine", _REQUEST
        )
        self.request_latency = self._histogram("e2e_request_latency_seconds", "From prompt to response", _REQUEST)
        self.requests_running = self._gauge("num_requests_running", "Answers of sessions being generated")
        self.requests_waiting = self._gauge("num_requests_waiting", "Prompts of sessions that wait for the engine")
        self.context_bytes = self._gauge("context_bytes", "Memory of the conversations of all sessions, about")
        self.contexts_forgotten = self._counter(
            "contexts_forgotten", "Conversations that were given up for want of memory; their renters bring them again"
        )
        self.sessions_open = self._gauge("sessions_open", "Sessions with a connection")
        self.connections_open = self._gauge("connections_open", "Open WebSockets")

    def _money(self) -> None:
        self.unacknowledged_tokens = self._gauge(
            "unacknowledged_tokens", "Tokens served, not yet acknowledged by a voucher"
        )
        self.unproven_tokens = self._gauge("unproven_tokens", "Tokens acknowledged, not yet proven on chain")
        self.claimable = self._amounts("claimable_base_units", "What open jobs would pay now, in base units")
        self.claims_held = self._amounts(
            "claims_held_base_units", "Claimed without a signature, held until it is decided, in base units"
        )
        self.claims_disputed = self._amounts(
            "claims_disputed_base_units", "Claimed and disputed: the host must answer, in base units"
        )
        self.claims_expiring = self._gauge("claims_expiring", "Things to collect whose deadline is near or has passed")
        self.withdrawable = self._amounts(
            "withdrawable_base_units", "Credited by the contract, not yet withdrawn, in base units"
        )
        self.acknowledged_tokens = self._counter("acknowledged_tokens", "Tokens that renters signed for")
        self.proven_tokens = self._counter("proven_tokens", "Tokens whose proof the contract accepted")
        self.unpaid_tokens = self._counter("unpaid_tokens", "Tokens of closed jobs that nobody paid for")
        earned = self._counter("earned_base_units", "Credited by the contract after its fee, in base units", "token")
        self.earned = MoneyCounter(earned, self._usdc)
        self.prove_seconds = self._histogram("prove_seconds", "Making one proof", _PROOF)
        self.weaker_proofs = self._counter(
            "weaker_proofs", "Jobs proven by a weaker circuit, or committed for it, since there was nothing to open"
        )
        self.proof_failures = self._counter("proof_failures", "Proofs that could not be made or were not accepted")

    def _prompts(self) -> None:
        self._prompt_outcomes = self._counter(
            "prompt_outcomes", "Claims of prompt jobs, by what came of them", "outcome"
        )
        for outcome in PROMPT_OUTCOMES:
            self._prompt_outcomes.labels(outcome)
        self.prompts_queued = self._gauge("prompts_queued", "Prompt jobs that this host would claim")
        self.prompts_working = self._gauge("prompts_working", "Prompt jobs that are claimed, or about to be")
        self.prompts_unpaid = self._amounts(
            "prompts_unpaid_base_units", "Prompt jobs that are claimed or answered and not paid yet, in base units"
        )

    def _parts(self) -> None:
        self._transactions = self._counter(
            "transactions", "Transactions that ended: in a buried block, refused before signing, or lost", "result"
        )
        for result in TransactionEnd:
            self._transactions.labels(result)
        self._gas_used = self._counter("gas_used", "Gas of transactions in buried blocks, reverted ones included")
        self.head_block = self._gauge("chain_head_block", "Newest block seen")
        self._engine_restarts = self._counter(
            "engine_restarts", "Times that the engine's process came back after its end"
        )
        self._up = self._gauge("part_up", "1 where the part works", "part")
        for part in PARTS:
            self._up.labels(part).set(0)
        self._gauge("build_info", "Constant 1; the version is the label", "version").labels(fabstir.__version__).set(1)

    def _models(self) -> None:
        """Names are those of the settings."""
        self._model_up = self._gauge("model_up", "1 where the model is served", "model_name")
        self._model_running = self._gauge("model_requests_running", "Answers at work, by model", "model_name")
        self._model_waiting = self._gauge("model_requests_waiting", "Requests in line, by model", "model_name")
        self._engine_up = self._gauge("engine_up", "1 where the engine of the model works", "model_name", "engine")

    def _machine(self) -> None:
        self._cpu = self._gauge("system_cpu_utilization_ratio", "Of all cores, since the last look, 0 to 1")
        self._memory_free = self._gauge("system_memory_available_bytes", "Memory that can be had without swapping")
        self._memory_total = self._gauge("system_memory_total_bytes", "Memory of the machine")
        self._resident = self._gauge(
            "resident_memory_bytes", "In memory, of the node and of the processes that it started", "process"
        )
        self._disk_free = self._gauge("data_disk_free_bytes", "Free on the disk of host.data_dir")
        self._disk_total = self._gauge("data_disk_total_bytes", "Size of the disk of host.data_dir")
        self._gpu_busy = self._gauge("gpu_utilization_ratio", "Part of the time that the GPU computes", "gpu")
        self._gpu_used = self._gauge("gpu_memory_used_bytes", "Memory of the GPU in use", "gpu")
        self._gpu_total = self._gauge("gpu_memory_total_bytes", "Memory of the GPU", "gpu")
        self._gpu_heat = self._gauge("gpu_temperature_celsius", "Of the GPU", "gpu")

    # -- with labels: closed sets only ---------------------------------------------------------------------------------

    def success(self, finish_reason: str) -> None:
        """One answer ended well. Raises ValueError on a reason that is not in FINISH_REASONS."""
        self._success.labels(_member(finish_reason, FINISH_REASONS)).inc()

    def failure(self, code: str) -> None:
        """One request ended with the error `code`. Raises ValueError on a code that is not in the catalogue."""
        self._failure.labels(_member(code, CATALOGUE)).inc()

    def prompt_outcome(self, outcome: str) -> None:
        """One claim of a prompt job ended. Raises ValueError on an outcome that is not in PROMPT_OUTCOMES."""
        self._prompt_outcomes.labels(_member(outcome, PROMPT_OUTCOMES)).inc()

    def transaction(self, result: TransactionEnd, gas_used: int = 0) -> None:
        """One transaction ended. Raises ValueError on what is not in TransactionEnd."""
        self._transactions.labels(TransactionEnd(result)).inc()
        self._gas_used.inc(gas_used)

    def restarts(self, total: int) -> None:
        """So often the engine's process was started again since this node began, by the engine's own count."""
        self._engine_restarts.inc(max(0, total - self._restarts))
        self._restarts = max(total, self._restarts)

    def up(self, part: str, works: bool) -> None:
        """Whether `part` works. Raises ValueError on a part that is not in PARTS."""
        self._up.labels(_member(part, PARTS)).set(works)

    def models(self, models: Sequence[tuple[str, bool, int, int, Mapping[str, bool]]]) -> None:
        """All models: name, whether it is served, answers at work, requests in line, and of each engine whether it works."""
        for gauge in (self._model_up, self._model_running, self._model_waiting, self._engine_up):
            gauge.clear()  # one that is gone leaves no series behind
        for name, up, running, waiting, engines in models:
            self._model_up.labels(name).set(up)
            self._model_running.labels(name).set(running)
            self._model_waiting.labels(name).set(waiting)
            for engine, works in engines.items():
                self._engine_up.labels(name, engine).set(works)

    def machine(self, seen: MachineState) -> None:
        """One look at the machine."""
        self._cpu.set(seen.cpu)
        self._memory_free.set(seen.memory_available)
        self._memory_total.set(seen.memory_total)
        self._resident.labels("node").set(seen.resident_node)
        self._resident.labels("children").set(seen.resident_children)
        self._disk_free.set(seen.disk_free)
        self._disk_total.set(seen.disk_total)
        for gpu in seen.gpus:
            index = str(gpu.index)
            self._gpu_busy.labels(index).set(gpu.busy)
            self._gpu_used.labels(index).set(gpu.memory_used)
            self._gpu_total.labels(index).set(gpu.memory_total)
            self._gpu_heat.labels(index).set(gpu.temperature)

    def expose(self) -> bytes:
        """The whole registry in Prometheus' text format (CONTENT_TYPE)."""
        return generate_latest(self.registry)

    # -- making --------------------------------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="fabstir", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="fabstir", registry=self.registry)

    def _amounts(self, name: str, text: str) -> MoneyGauge:
        return MoneyGauge(self._gauge(name, text, "token"), self._usdc)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace="fabstir", registry=self.registry, buckets=buckets)


def currency(token: Address, usdc: Address | None) -> str:
    """How amounts of `token` are labelled. A host takes the market's USDC and ETH; a journal of before may hold another."""
    if token == ZERO_ADDRESS:
        return "eth"
    return "usdc" if token == usdc else to_hex(token)


def _member(value: str, allowed: Container[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of the values of this label")
    return value
