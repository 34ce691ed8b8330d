"""All keys and values so far, for heads that see everything: the one cache that grows with the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.decode.cache import Cache, take
from reformer.decode.step import DecodeStep

FIRST_CAPACITY = 256


@dataclass
class FullCache(Cache):
    """Keys and values [batch, heads, capacity, d_head]; token t lies at t."""

    fixed_shape = False

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, d_head: int, like: Tensor) -> FullCache:
        return cls(*(like.new_zeros(batch, heads, FIRST_CAPACITY, d_head) for _ in range(2)))

    def mark(self, seen: int, tokens: int, native: bool) -> None:
        """Nothing: what lies beyond the tokens that were seen is never read."""

    def rewind(self) -> None:
        """As `mark`."""

    def tensors(self, seen: int) -> dict[str, Tensor]:
        return {"keys": self.keys[:, :, :seen], "values": self.values[:, :, :seen]}

    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        like = self.keys
        shape = [*like.shape[:2], int(seen.max()), like.shape[3]]
        self.keys, self.values = (take(tensors, name, like.dtype, shape).to(like.device) for name in ("keys", "values"))

    def _grow(self, length: int) -> None:
        """Have room for so many tokens."""
        if length > self.keys.shape[2]:
            more = max(length, 2 * self.keys.shape[2]) - self.keys.shape[2]
            self.keys, self.values = (F.pad(x, (0, 0, 0, more)) for x in (self.keys, self.values))

    def fill(self, k: Tensor, v: Tensor) -> None:
        """Take in the keys and values of whole texts, when nothing was seen."""
        new = k.shape[2]
        self._grow(new)
        self.keys[:, :, :new], self.values[:, :, :new] = k, v

    def attend_and_append(self, q: Tensor, k: Tensor, v: Tensor, step: DecodeStep) -> Tensor:
        """What new tokens [batch, heads, new, d_head] read; they are filed."""
        new = q.shape[2]
        longest = int(step.seen.max()) + new
        self._grow(longest)
        now = step.seen[:, None] + torch.arange(new, device=q.device)
        b, i = (torch.arange(new, device=q.device) < step.new[:, None]).nonzero(as_tuple=True)
        self.keys[b, :, now[b, i]], self.values[b, :, now[b, i]] = k[b, :, i], v[b, :, i]
        visible = torch.arange(longest, device=q.device) <= now[..., None]
        keys, values = self.keys[:, :, :longest], self.values[:, :, :longest]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=visible[:, None], scale=1.0)
