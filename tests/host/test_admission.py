"""Nonces: each works once, and remembering them costs a bounded memory."""

from __future__ import annotations

import pytest

from fabstir.domain.errors import Refused
from fabstir.domain.ids import Hash32, JobId
from fabstir.host.nonces import NonceCache

JOB, OTHER = JobId(b"\1" * 32), JobId(b"\2" * 32)


def _nonce(number: int) -> Hash32:
    return Hash32(number.to_bytes(32, "big"))


def test_a_nonce_works_once_for_each_job() -> None:
    """Another job may choose the same one."""
    cache = NonceCache()
    cache.use(JOB, _nonce(1), 100.0, 0.0)
    cache.use(JOB, _nonce(2), 100.0, 0.0)
    cache.use(OTHER, _nonce(1), 100.0, 0.0)
    with pytest.raises(Refused, match="session_unauthorized"):
        cache.use(JOB, _nonce(1), 100.0, 99.0)


def test_a_nonce_is_remembered_as_long_as_its_authorisation_is_good() -> None:
    """At the last second of the window it is still refused; later the window itself refuses it, and the memory is free."""
    cache = NonceCache()
    cache.use(JOB, _nonce(1), 100.0, 0.0)
    with pytest.raises(Refused):
        cache.use(JOB, _nonce(1), 100.0, 100.0)
    cache.use(JOB, _nonce(2), 300.0, 101.0)
    assert repr(cache) == "<NonceCache 1 of 65536>"


def test_a_full_cache_refuses_rather_than_forgets() -> None:
    """A flood of sessions cannot make an old nonce good again; when nonces expire there is room."""
    cache = NonceCache(limit=2)
    cache.use(JOB, _nonce(1), 100.0, 0.0)
    cache.use(JOB, _nonce(2), 200.0, 0.0)
    with pytest.raises(Refused, match="capacity"):
        cache.use(JOB, _nonce(3), 200.0, 50.0)
    with pytest.raises(Refused, match="session_unauthorized"):
        cache.use(JOB, _nonce(1), 100.0, 50.0)
    cache.use(JOB, _nonce(3), 200.0, 101.0)
