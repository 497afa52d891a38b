"""Attestation of virtual machines: quotes of Intel TDX read and verified, and made where this machine is one.

`tdx.TdxVerifier` is the way in; the other modules are its steps. Nothing here opens a network connection: whatever Intel publishes
(TCB info, identity of the quoting enclave, revocation lists) comes in as bytes. Specification: docs/explanation/attestation.md.
"""
