"""web3.py on top of our failover RPC.

web3 has contract factories, receipts and a signing middleware, and no failover; `connect_web3` gives both. For work
that happens once (deployment, administration): a contract call through web3 costs 7-12 ms of Python, so reads and the
outbox use the bindings directly. Importing web3 takes 1-2 s; only this module does it, and only when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fabstir.chain.rpc import JsonRpc, RpcError

if TYPE_CHECKING:
    from web3 import AsyncWeb3
    from web3.types import RPCEndpoint, RPCResponse


def connect_web3(rpc: JsonRpc, key: bytes | None = None) -> AsyncWeb3[Any]:
    """A web3 over `rpc`; with `key`, transactions from its account are signed here (coincurve) and sent raw."""
    from web3 import AsyncWeb3  # noqa: PLC0415 - slow, see above
    from web3.middleware import SignAndSendRawMiddlewareBuilder  # noqa: PLC0415
    from web3.providers.async_base import AsyncJSONBaseProvider  # noqa: PLC0415

    class FailoverProvider(AsyncJSONBaseProvider):
        """Hands every request to JsonRpc; an endpoint's final error goes back as JSON-RPC has it."""

        async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
            try:
                answer: dict[str, Any] = {"result": await rpc.request(method, *params)}
            except RpcError as fault:
                answer = {"error": {"code": fault.code, "message": fault.message, "data": "0x" + fault.data.hex()}}
            return cast("RPCResponse", {"jsonrpc": "2.0", "id": 1, **answer})

        async def is_connected(self, show_traceback: bool = False) -> bool:
            return True

    web3: AsyncWeb3[Any] = AsyncWeb3(FailoverProvider())
    if key is not None:
        account = web3.eth.account.from_key(key)
        web3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
        web3.eth.default_account = account.address
    return web3
