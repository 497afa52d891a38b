"""The tiny chat model in torch: a llama of 0.84 million parameters, and rank-4 adapters for it.

The shapes are those that llama.cpp loads as architecture `llama`: RMS norm, grouped-query attention, SwiGLU, tied
output. Its rotary embedding turns neighbouring pairs, so training does the same and the weights need no permutation.
Row lengths divide by 32, for Q8_0 and Q4_0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Of the network; written beside the weights."""

    dim: int = 128
    layers: int = 4
    heads: int = 4
    kv: int = 2
    ff: int = 352
    vocab: int = 768
    eps: float = 1e-5
    base: float = 10000.0

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.dim // self.heads

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _angles(shape: Shape, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = shape.base ** (-torch.arange(0, shape.head, 2).float() / shape.head)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos(), angles.sin()


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(nn.Module):
    """Attention and feed-forward. The attribute names are those in weights.npz (to_gguf.py)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.an = nn.RMSNorm(shape.dim, eps=shape.eps)
        self.fn = nn.RMSNorm(shape.dim, eps=shape.eps)
        wide = shape.kv * shape.head
        self.q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.k = nn.Linear(shape.dim, wide, bias=False)
        self.v = nn.Linear(shape.dim, wide, bias=False)
        self.o = nn.Linear(shape.dim, shape.dim, bias=False)
        self.gate = nn.Linear(shape.dim, shape.ff, bias=False)
        self.up = nn.Linear(shape.dim, shape.ff, bias=False)
        self.down = nn.Linear(shape.ff, shape.dim, bias=False)
        nn.init.zeros_(self.o.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """One layer."""
        rows, length, _ = x.shape
        h = self.an(x)

        def heads(y: torch.Tensor, count: int) -> torch.Tensor:
            return y.view(rows, length, count, self.shape.head).transpose(1, 2)

        q = _rotate(heads(self.q(h), self.shape.heads), cos, sin)
        k = _rotate(heads(self.k(h), self.shape.kv), cos, sin)
        v = heads(self.v(h), self.shape.kv)
        group = self.shape.heads // self.shape.kv
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(seen.transpose(1, 2).reshape(rows, length, self.shape.dim))
        h = self.fn(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class TinyChat(nn.Module):
    """Ids in, logits out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.emb = nn.Embedding(shape.vocab, shape.dim)
        nn.init.normal_(self.emb.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dim, eps=shape.eps)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of every position."""
        cos, sin = _angles(self.shape, ids.shape[1])
        x = self.emb(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return functional.linear(self.norm(x), self.emb.weight)


class Adapted(nn.Module):
    """A linear layer with a low-rank addition."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) * 0.05)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer and its addition."""
        return self.linear(x) + (x @ self.down.T @ self.up.T) * self.scale


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps: for the matrices inside the layers (K. Jordan, 2024)."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(0.95).add_(p.grad)
                update = _orthogonal(p.grad.add(momentum, alpha=0.95))
                p.mul_(1 - group["lr"] * 0.01).add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def _orthogonal(x: torch.Tensor) -> torch.Tensor:
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x
