"""Fabstir LLM Node: owners of GPUs serve language models directly to renters."""

from typing import Final

__version__: Final = "0.1.0"
