"""Schemathesis against a server: every operation of its published document, right and wrong requests, all checks."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, Final

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.openapi.checks import RejectedPositiveData

BEYOND_SCHEMAS: Final = (
    "the last one must be the user's or a tool's, and not empty",
    "only an assistant calls",
    "is not served here",
    "matching regex",  # of an item that has the type for which a name or an id is needed
    "there are no tools",
    "is not among the tools",
    "json_schema without a schema",
    "a function and its name are missing",
    "token ids and biases from -100 to 100 are needed",
    "control_invalid",  # what does not fit together
    "only together with",
    "job_terms_mismatch",  # hashes and signatures
    "seal_invalid",
    "position that this host gave",
)
"""Rules that no JSON Schema can say: a request that breaks one of these alone fits the document, and is refused all the same."""


def fuzz(url: str, examples: int) -> int:
    """`examples` right and as many wrong requests of each operation. Raises what the first check raises that fails; returns how many
    requests were answered. Blocks: call it in a thread.
    """
    with urllib.request.urlopen(url + "/openapi.json", timeout=10) as answer:
        document: dict[str, Any] = json.loads(answer.read())
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    asked = 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # an Err is for a document that is none
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                _check(case)

            try:
                ask()
            except Unsatisfiable:  # nothing can be wrong in a request that has no parts
                assert mode is GenerationMode.NEGATIVE
    return asked


def _check(case: Any) -> None:
    try:
        case.call_and_validate(timeout=20)
    except BaseExceptionGroup as failures:
        told = str(failures)
        if all(isinstance(one, RejectedPositiveData) for one in failures.exceptions) and any(
            rule in told for rule in BEYOND_SCHEMAS
        ):
            return
        raise
