"""What the generated bindings are made of: calldata, return values, logs and custom errors, to and from Python values.

Knows the ABI encoding and nothing of any contract; sends nothing. An address is 20 raw bytes, a bytes32 is 32 raw
bytes, a struct is a NamedTuple in the field order of its Solidity source. Needs eth_abi only, so that importing it
stays cheap (web3 costs 2 s). `contracts/tools/bindings.py` writes `fabstir.chain.bindings` on top of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from eth_abi.codec import ABICodec
from eth_abi.decoding import AddressDecoder
from eth_abi.encoding import AddressEncoder
from eth_abi.exceptions import DecodingError
from eth_abi.registry import ABIRegistry, BaseEquals, registry

from fabstir.domain.errors import ChainFault, error
from fabstir.domain.ids import Address

E = TypeVar("E")
WORD: Final = 32
SELECTOR: Final = 4


class _RawAddressDecoder(AddressDecoder):
    """Gives the 20 bytes instead of checksummed text."""

    decoder_fn = staticmethod(Address)  # type: ignore[assignment]  # eth_abi promises text here


def _codec() -> ABICodec:
    own: ABIRegistry = registry.copy()  # type: ignore[no-untyped-call]
    own.unregister("address")
    is_address = BaseEquals("address")  # type: ignore[no-untyped-call]
    own.register(is_address, AddressEncoder, _RawAddressDecoder, label="address")
    return ABICodec(own)


_CODEC: Final = _codec()


def _decode(what: str, types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return tuple(_CODEC.decode(types, data))
    except (DecodingError, OverflowError, UnicodeDecodeError) as fault:
        detail = f"{what} gave {len(data)} bytes that do not decode as ({','.join(types)})"
        raise error("chain_mismatch", detail=detail) from fault


class Function:
    """One function of a contract."""

    def __init__(self, name: str, selector: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.name: Final = name
        self.selector: Final = bytes.fromhex(selector)
        self._inputs: Final = tuple(inputs)
        self._outputs: Final = tuple(outputs)

    def encode(self, *arguments: Any) -> bytes:
        """Calldata. A value that does not fit its type is a programmer error (eth_abi's EncodingError)."""
        return self.selector + bytes(_CODEC.encode(self._inputs, arguments))

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """The returned values. Raises ChainFault (`chain_mismatch`): most often there is no such contract at the address."""
        return _decode(self.name, self._outputs, data)

    def arguments(self, calldata: bytes) -> tuple[Any, ...]:
        """What a call was made with. Raises ChainFault (`chain_mismatch`)."""
        if calldata[:SELECTOR] != self.selector:
            raise error("chain_mismatch", detail=f"calldata is not a call of {self.name}")
        return _decode(self.name, self._inputs, calldata[SELECTOR:])


def encode_arguments(types: Sequence[str], arguments: Sequence[Any]) -> bytes:
    """ABI-encoded `arguments` without a selector: constructors, proofs."""
    return bytes(_CODEC.encode(types, arguments))


class Field(NamedTuple):
    """One parameter of an event."""

    name: str
    type: str
    indexed: bool
    build: Callable[[Any], Any] | None = None
    """Makes the struct of a decoded tuple."""


class EventCodec(Generic[E]):
    """One event: its topic0 and how its logs read."""

    def __init__(self, event: type[E], topic: str, fields: Sequence[Field]) -> None:
        self.event: Final = event
        self.topic: Final = bytes.fromhex(topic)
        self._fields: Final = tuple(fields)

    def decode(self, log: Mapping[str, Any]) -> E:
        """The event of a log as JSON-RPC gives it (hexadecimal text) or web3 does (bytes). Raises ChainFault (`chain_mismatch`)."""
        return self.decode_parts([_raw(topic) for topic in log["topics"]], _raw(log["data"]))

    def decode_parts(self, topics: Sequence[bytes], data: bytes) -> E:
        """As `decode`, from raw topics (topic0 first) and data."""
        name = self.event.__name__
        indexed = [field for field in self._fields if field.indexed]
        if not topics or bytes(topics[0]) != self.topic or len(topics) != len(indexed) + 1:
            raise error("chain_mismatch", detail=f"the log is no {name}")
        plain = [field for field in self._fields if not field.indexed]
        values = dict(zip((f.name for f in plain), _decode(name, [f.type for f in plain], data), strict=True))
        for field, topic in zip(indexed, topics[1:], strict=True):
            values[field.name] = _decode(name, [field.type], bytes(topic))[0]
        return self.event(**{f.name: f.build(values[f.name]) if f.build else values[f.name] for f in self._fields})


def _raw(value: Any) -> bytes:
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)


class Revert(NamedTuple):
    """Why a call reverted: a custom error by name, `Error` or `Panic` of the compiler, or the bare selector as 0x... text."""

    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(_show(value) for value in self.args)})"


def _show(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


class ErrorCodec(NamedTuple):
    """One custom error."""

    name: str
    inputs: tuple[str, ...]

    def decode(self, data: bytes) -> Revert:
        """`data` without the selector; where it does not decode, the raw data is the only argument. Never raises."""
        try:
            return Revert(self.name, _decode(self.name, self.inputs, data))
        except ChainFault:
            return Revert(self.name, (data,))
