"""The chain shell: RPC with failover, transaction outbox, log follower, market client, keys, devnet and deployment.

Implements `fabstir.ports.chain`. Everything that the chain, an RPC endpoint or a tool says is translated here into
`fabstir.domain.errors`; no web3 type leaves this package.
"""
