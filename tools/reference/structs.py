"""A msgspec Struct as a section of the reference: what it is, and a table of its fields."""

from __future__ import annotations

import msgspec
from msgspec import inspect

from reference.docstrings import below
from reference.table import table

WORDS = {
    r"^0x[0-9a-f]{64}\Z": "32 bytes, hex",
    r"^0x[0-9a-f]{40}\Z": "address, hex",
    r"^0x[0-9a-f]{130}\Z": "65 bytes r, s, v, hex",
    r"^(0|[1-9][0-9]{0,28})\Z": "decimal digits",
    r"^[A-Za-z0-9_-]{1,64}\Z": "1 to 64 of A-Z a-z 0-9 _ -",
}
"""Patterns of text for a person; another one is shown as it is."""


def struct(heading: str, cls: type) -> str:
    """`heading`, the docstring of `cls`, and its fields as they are on the wire."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    about = " ".join((cls.__doc__ or "").split())
    if info.array_like:
        about += " On the wire an array, in this order."
    notes = below(cls)
    rows = [(f"`{f.encode_name}`", _kind(f.type), _default(f), notes.get(f.name, "")) for f in info.fields]
    return f"{heading}\n\n{about}\n\n{table(('Field', 'Type', 'Default', 'Meaning'), rows)}"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def _kind(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _kind(kind.type)
        case inspect.UnionType():
            return " or ".join(_kind(part) for part in kind.types)
        case inspect.VarTupleType():
            most = f", at most {kind.max_length}" if kind.max_length is not None else ""
            return f"list of {_kind(kind.item_type)}{most}"
        case inspect.TupleType():
            return f"[{', '.join(_kind(part) for part in kind.item_types)}]"
        case inspect.StructType():
            return kind.cls.__name__
        case inspect.DictType():
            return f"object of {_kind(kind.value_type)}"
        case inspect.StrType() | inspect.BytesType() | inspect.LiteralType():
            return _text(kind)
        case inspect.IntType() | inspect.FloatType():
            return ("integer" if isinstance(kind, inspect.IntType) else "number") + _bounds(kind)
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case _:
            return {inspect.BoolType: "true or false", inspect.NoneType: "null"}[type(kind)]


def _text(kind: inspect.StrType | inspect.BytesType | inspect.LiteralType) -> str:
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(map(str, kind.values))
    if isinstance(kind, inspect.BytesType):
        return "base64" if kind.max_length is None else f"base64 of at most {kind.max_length} bytes"
    if kind.pattern is not None:
        return WORDS.get(
            kind.pattern, kind.pattern.removeprefix("^").removesuffix(r"\Z").strip("()").replace("|", " or ")
        )
    return f"text, at most {kind.max_length} characters" if kind.max_length is not None else "text"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f", {kind.ge} to {kind.le}"
    low = f">= {kind.ge}" if kind.ge is not None else f"> {kind.gt}" if kind.gt is not None else ""
    high = f"<= {kind.le}" if kind.le is not None else f"< {kind.lt}" if kind.lt is not None else ""
    return "".join(f", {bound}" for bound in (low, high) if bound)
