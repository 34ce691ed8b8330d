"""The last keys and values of a sliding window, in a ring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.config import Backend
from reformer.decode.cache import Cache, take, zeros
from reformer.decode.native_structs import WindowStruct, window_struct
from reformer.decode.step import DecodeStep
from reformer.ops.bucket_attention.attend import attend_new
from reformer.ops.bucket_attention.windows import BucketWindows, Round, flat_order


@dataclass
class WindowCache(Cache):
    """The last `window` keys and values [batch, heads, window, d_head]; token t lies at t modulo window. chunk: what is
    seen begins at the chunk before the own one (chunked kinds); 0: all of the window is seen."""

    keys: Tensor
    values: Tensor
    chunk: int

    @classmethod
    def empty(cls, batch: int, heads: int, d_head: int, window: int, like: Tensor, chunk: int = 0) -> WindowCache:
        shape = (batch, heads, window, d_head)
        return cls(zeros(shape, like.dtype, like.device), zeros(shape, like.dtype, like.device), chunk)

    def tensors(self, seen: int) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}

    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        for own, name in ((self.keys, "keys"), (self.values, "values")):
            own.copy_(take(tensors, name, own.dtype, own.shape))

    def struct(self, row: int) -> WindowStruct:
        """A row of the batch for C."""
        return window_struct(self.keys[row], self.values[row], self.chunk)

    def attend_and_append(self, q: Tensor, k: Tensor, v: Tensor, step: DecodeStep, backend: Backend) -> Tensor:
        """What new tokens [batch, heads, new, d_head] read; they are filed."""
        if q.shape[2] == 1:
            return self.single(q, k, v, step)
        seen, counts = step.seen, step.new
        window, new = self.keys.shape[2], q.shape[2]
        times = seen[:, None] + torch.arange(1 - window, 0, device=q.device)
        index = (times % window)[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
        keys, values = torch.cat([self.keys.gather(2, index), k], 2), torch.cat([self.values.gather(2, index), v], 2)
        now = seen[:, None] + torch.arange(new, device=q.device)
        first = (now // self.chunk - 1).clamp_min(0) * self.chunk if self.chunk else torch.zeros_like(now)
        # of those before, which are not read, but must not fall behind the new ones
        before = torch.arange(1, window, device=q.device).expand_as(times)
        reach = torch.cat([before, (now - first + 1).clamp_max(window)], 1).to(torch.int32)
        batch, heads, length, _ = keys.shape
        order = flat_order(batch, heads, length, q.device).flatten()
        layout = BucketWindows(
            [Round(order, reach.repeat_interleave(heads, 0).view(-1), None, window)], 64, itself=True
        )
        out = attend_new(q, keys, values, layout, self_if_alone=False, backend=backend)
        self.file(k, v, seen, counts)
        return out

    def fill(self, k: Tensor, v: Tensor) -> None:
        """Take in the keys and values of whole texts, when nothing was seen."""
        n, window = k.shape[2], self.keys.shape[2]
        for ring, new in ((self.keys, k), (self.values, v)):
            ring[:, :, :n] = new[:, :, -window:].roll(n % window if n > window else 0, 2)

    def file(self, k: Tensor, v: Tensor, seen: Tensor, counts: Tensor) -> None:
        """Keep the last of k, v [batch, heads, new, d_head], of which counts [batch] are real, after `seen` others."""
        window, newest = self.keys.shape[2], (seen + counts)[:, None] - 1
        token = newest - (newest - torch.arange(window, device=k.device)) % window - seen[:, None]  # of each slot
        index = token.clamp_min(0)[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
        for ring, new in ((self.keys, k), (self.values, v)):
            ring.copy_(torch.where((token >= 0)[:, None, :, None], new.gather(2, index).to(ring.dtype), ring))

    def single(self, q: Tensor, k: Tensor, v: Tensor, step: DecodeStep) -> Tensor:
        """`attend_and_append` of one token a row, in few operations of fixed shapes."""
        seen, window, rows = step.seen, self.keys.shape[2], torch.arange(len(step.seen), device=q.device)
        slots, real = seen % window, step.new[:, None, None] > 0
        for ring, new in ((self.keys, k), (self.values, v)):
            ring[rows, :, slots] = torch.where(real, new[:, :, 0], ring[rows, :, slots])
        age = (seen[:, None] - torch.arange(window, device=q.device)) % window
        first = (seen // self.chunk - 1).clamp_min(0) * self.chunk if self.chunk else torch.zeros_like(seen)
        visible = (seen[:, None] - age >= first[:, None])[:, None, None]
        return F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=visible, scale=1.0)
