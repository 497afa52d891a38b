"""What an endpoint says, in the words of our catalogue.

The border of this shell: `RpcError` goes in, `ChainFault` comes out. A revert is named by the contract's own error
(`ProofMissing`), which callers may compare.
"""

from __future__ import annotations

from fabstir.chain import bindings
from fabstir.chain.rpc import RpcError
from fabstir.domain.errors import FabstirError, error


def translate(fault: RpcError) -> FabstirError:
    """`chain_reverted`, `funds_insufficient` or `chain_failed`."""
    if fault.data:
        revert = bindings.decode_revert(fault.data)
        return error("chain_reverted", detail=str(revert) if revert.args else revert.name)
    if fault.reverted:
        return error("chain_reverted", detail=fault.message)
    if "insufficient funds" in fault.message.lower():
        return error("funds_insufficient", detail=fault.message)
    return error("chain_failed", detail=f"{fault.endpoint}: {fault.message} ({fault.code})")
