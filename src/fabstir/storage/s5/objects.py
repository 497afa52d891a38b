"""Blobs and pointers in an object store: S3 and what speaks its protocol (MinIO, R2, ...), through obstore; its memory store for trials.

    blobs/ab/abcd...  and  registry/ed...  below a prefix

A put has reached the store's replicas when it returns. A pointer is replaced only if it is still the one that was read (ETag), and
created only if there is none, so that of two writers one is refused instead of being overwritten; a store that ignores these
conditions must not be used, and `check_conditions` finds out. Retries and time limits are the client's and are bounded; what
remains is `storage_unavailable`. Never follows a redirect to another host, never falls back to another store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import MemoryStore, S3Store

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import HASH, hash_of
from fabstir.protocol.storage.keys import KeyPair
from fabstir.protocol.storage.registry import RegistryEntry, is_news

ATTEMPTS: Final = 8
"""Of replacing a pointer that others replace meanwhile. A refusal by revision ends it at once."""
MAX_BLOB: Final = 64 << 20
"""Bytes that are read of one object: ours are smaller, and nobody else's may fill memory."""
_GONE: Final = (NotFoundError, FileNotFoundError)
_TAKEN: Final = (AlreadyExistsError, PreconditionError)


class S3Place(msgspec.Struct, frozen=True):
    """Where a bucket is, and who asks. `repr` shows no secret."""

    bucket: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str
    allow_http: bool = False
    timeout: float = 20.0
    """Seconds for one request."""

    def __repr__(self) -> str:
        return f"<S3Place {self.endpoint}/{self.bucket}>"

    def open(self) -> S3Store:
        """A client. Nothing is sent yet."""
        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": self.allow_http,
                "timeout": timedelta(seconds=self.timeout),
                "connect_timeout": timedelta(seconds=min(5.0, self.timeout)),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=2 * self.timeout)},
        )


class ObjectStorage:
    """Implements `BlobBackend` and `Registry` on one store. Memory: the blobs in flight."""

    def __init__(self, store: S3Store | MemoryStore, prefix: str = "") -> None:
        """`prefix` is empty or ends in a slash."""
        self._store = store
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"<ObjectStorage {type(self._store).__name__} {self._prefix}>"

    async def put(self, content: bytes) -> Hash32:
        """Raises `storage_unavailable`, `blob_quota`."""
        blob = hash_of(content)
        await self._put(self._blob(blob), content, None)
        return blob

    async def get(self, blob: Hash32) -> bytes:
        """Raises `blob_missing`, `blob_corrupt`, `storage_unavailable`."""
        found = await self._get(self._blob(blob))
        if found is None:
            raise error("blob_missing", blob.hex())
        if hash_of(found[0]) != blob:
            raise error("blob_corrupt", f"{blob.hex()}, {len(found[0])} bytes")
        return found[0]

    async def size(self, blob: Hash32) -> int | None:
        """Bytes of the object."""
        try:
            found = await obstore.head_async(self._store, self._blob(blob))
        except _GONE as cause:
            _check_bucket(cause)
            return None
        except BaseError as cause:
            raise _failure(cause) from cause
        return found["size"]

    async def delete(self, blob: Hash32) -> None:
        """Idempotent."""
        try:
            await obstore.delete_async(self._store, self._blob(blob))
        except _GONE as cause:
            _check_bucket(cause)
        except BaseError as cause:
            raise _failure(cause) from cause

    async def names(self) -> AsyncIterator[Hash32]:
        """In the order of their names, by pages of the store."""
        async for path in self._paths("blobs/"):
            name = path.rpartition("/")[2]
            if len(name) == 2 * HASH:
                yield Hash32(bytes.fromhex(name))

    async def read(self, public: bytes) -> RegistryEntry | None:
        """Raises `registry_invalid`, `storage_unavailable`."""
        found = await self._get(self._pointer(public))
        return _entry(public, found[0]) if found else None

    async def publish(self, entry: RegistryEntry) -> None:
        """Replaces what was read, or reads again. Raises `registry_stale`, `registry_invalid`, `storage_conflict`."""
        for attempt in range(ATTEMPTS):
            found = await self._get(self._pointer(entry.public))
            try:
                held = _entry(entry.public, found[0]) if found else None
            except FabstirError:
                held = None  # what nobody signed is no entry, and must not keep out one that is
            if not is_news(held, entry):
                return
            try:
                await self._put(self._pointer(entry.public), entry.pack(), found[1] if found else "create")
            except _TAKEN:
                await asyncio.sleep(0.01 * 2**attempt)
                continue
            return
        raise error("storage_conflict", f"pointer {entry.public.hex()[:12]}, {ATTEMPTS} attempts")

    async def entries(self) -> AsyncIterator[RegistryEntry]:
        """Every pointer."""
        async for path in self._paths("registry/"):
            if (found := await self._get(path)) is not None:
                yield RegistryEntry.unpack(found[0])

    async def check_conditions(self) -> None:
        """Whether the store keeps conditions, tried on a pointer of its own. Raises `storage_unavailable` where it does not."""
        entry = RegistryEntry.sign(KeyPair(hash_of(b"fabstir: does this store keep conditions?")), 0, b"")
        path = self._pointer(entry.public)
        try:
            await self._put(path, entry.pack(), None)
            await self._put(path, entry.pack(), "create")
        except _TAKEN:
            return
        raise error(
            "storage_unavailable",
            "the store ignores `If-None-Match`: two writers could overwrite each other's pointers",
        )

    async def _get(self, path: str) -> tuple[bytes, Any] | None:
        try:
            found = await obstore.get_async(self._store, path)
            if found.meta["size"] > MAX_BLOB:
                raise error("blob_corrupt", f"{path}: {found.meta['size']} bytes")
            known = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
            version = {name: value for name, value in known.items() if value is not None}
            return bytes(await found.bytes_async()), version
        except _GONE as cause:
            _check_bucket(cause)
            return None
        except BaseError as cause:
            raise _failure(cause) from cause

    async def _put(self, path: str, content: bytes, mode: Any) -> None:
        try:
            await obstore.put_async(self._store, path, content, mode=mode or "overwrite", use_multipart=False)
        except _TAKEN:
            raise
        except (BaseError, *_GONE) as cause:
            raise _failure(cause) from cause

    async def _paths(self, part: str) -> AsyncIterator[str]:
        try:
            async for page in obstore.list(self._store, prefix=self._prefix + part):
                for found in page:
                    yield found["path"]
        except BaseError as cause:
            raise _failure(cause) from cause

    def _blob(self, blob: Hash32) -> str:
        name = blob.hex()
        return f"{self._prefix}blobs/{name[:2]}/{name}"

    def _pointer(self, public: bytes) -> str:
        return f"{self._prefix}registry/{public.hex()}"


def _entry(public: bytes, packed: bytes) -> RegistryEntry:
    entry = RegistryEntry.unpack(packed)
    if entry.public != public:
        raise error("registry_invalid", "an entry under another key's name")
    return entry


def _check_bucket(cause: Exception) -> None:
    """There is no such object; but that there is no such bucket is no answer."""
    if "NoSuchBucket" in str(cause):
        raise _failure(cause) from cause


def _failure(cause: Exception) -> FabstirError:
    words = " ".join(str(cause).split())[:300]
    return error("blob_quota" if "QuotaExceeded" in words else "storage_unavailable", words)
