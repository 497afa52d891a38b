"""The strings that stand below fields and enum members in a source file; Python drops them, the reference shows them."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise


def below(cls: type) -> dict[str, str]:
    """What is written below each attribute of `cls`, inherited ones too, on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("fabstir."):
            found |= _own(base)
    return found


def _own(cls: type) -> dict[str, str]:
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in pairwise(tree.body):
        if isinstance(statement, ast.AnnAssign):
            target: ast.expr = statement.target
        elif isinstance(statement, ast.Assign):
            target = statement.targets[0]
        else:
            continue
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[target.id] = " ".join(str(following.value.value).split())
    return found
