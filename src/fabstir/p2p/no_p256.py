"""libp2p 0.8.1 imports fastecdsa, which has no binary distribution, for keys on the curve P-256 that this network does not take.

Where fastecdsa is not installed, modules of its name stand in whose every use raises, so that a peer with such a key is refused and an
installation needs no C compiler. Where it is installed nothing is changed.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any, NoReturn


class RefusedKey:
    """Whatever of fastecdsa is used. Raises NotImplementedError."""

    def __init__(self, *_: Any, **__: Any) -> None:
        _refuse()


def stand_in() -> None:
    """Before the first import of libp2p."""
    if importlib.util.find_spec("fastecdsa") is not None:
        return
    parts: dict[str, dict[str, Any]] = {
        "fastecdsa": {},
        "fastecdsa.curve": {"Curve": RefusedKey, "P256": None},
        "fastecdsa.keys": {
            "gen_private_key": _refuse,
            "export_key": _refuse,
            "import_key": _refuse,
            "get_public_key": _refuse,
        },
        "fastecdsa.point": {"Point": RefusedKey},
        "fastecdsa.encoding": {},
        "fastecdsa.encoding.sec1": {"SEC1Encoder": RefusedKey},
        "fastecdsa.encoding.util": {"int_bytelen": _refuse},
    }
    for name, contents in parts.items():
        module = sys.modules[name] = ModuleType(name)
        module.__dict__.update(contents)
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, module)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("keys on the curve P-256 are not taken here")
