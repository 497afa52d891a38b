"""Schemathesis finds nothing: neither a status, a body nor a header that the published documents do not say. For long: `make fuzz`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest
from tests.api.fuzzing import fuzz
from tests.api.gateways import gateway_of
from tests.api.test_prompts import served as serving_prompts
from tests.host.prompt_world import PromptWorld

EXAMPLES: Final = int(os.environ.get("FABSTIR_FUZZ_EXAMPLES", "3"))
"""Right ones of each operation, and as many wrong ones."""


@pytest.mark.timeout(0)
async def test_the_gateway_does_what_its_document_says() -> None:
    """Whatever is asked of it."""
    async with gateway_of(200_000) as gateway:
        assert await asyncio.to_thread(fuzz, gateway.url, EXAMPLES) > 8 * EXAMPLES


@pytest.mark.timeout(0)
@pytest.mark.parametrize("desk", [True, False])
async def test_a_host_does_what_its_document_says(tmp_path: Path, desk: bool) -> None:
    """With a desk of prompt jobs and without."""
    async with serving_prompts(PromptWorld(tmp_path), desk=desk) as client:
        assert await asyncio.to_thread(fuzz, client.url, EXAMPLES) > 8 * EXAMPLES
