"""What the hash does on a text: how evenly it fills its buckets, and how much of what matters it lets a query see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.attention.base import Attention, Hashed
from reformer.layers.context import PassContext
from reformer.model import ReformerLM
from reformer.reversible.autograd import begin
from reformer.reversible.coupling import AttentionCoupling

__all__ = ["Attention", "HashStatistics", "hash_statistics", "observe"]


@dataclass(frozen=True)
class HashStatistics:
    """Of the LSH heads of one layer.

    effective_buckets: [rounds, heads], 1 / sum of squared shares; as many as there are if all are equally full.
    largest_bucket: [rounds, heads], share of the text in the fullest. fell_out: [rounds, heads], of all earlier
    positions in the buckets of their queries, the share that the window no longer holds. found: [heads], of the sampled
    queries' nearest earlier keys, the share that they see in some round. nearest: how many keys a query was asked for.
    """

    layer: str
    effective_buckets: Tensor
    largest_bucket: Tensor
    fell_out: Tensor
    found: Tensor
    nearest: int


@torch.no_grad()
def hash_statistics(
    model: ReformerLM, tokens: Tensor, *, nearest: int = 16, queries: int = 256, seed: int = 0
) -> list[HashStatistics]:
    """Statistics of every LSH layer on a text, int64 [1, length], the model in evaluation; one entry a layer.

    Of layers on groups, positions are groups. Raises ValueError for another shape or a text too short to have `nearest`
    earlier keys.
    """
    too_few = (nearest + 1) * model.config.shorten_factor - 1
    if tokens.dim() != 2 or tokens.shape[0] != 1 or tokens.shape[1] <= too_few:
        raise ValueError(f"tokens must be [1, more than {too_few}], not {list(tokens.shape)}")
    found: list[HashStatistics] = []

    def look(name: str, sublayer: Attention, qkv: tuple[Tensor, ...]) -> None:
        if (hashed := sublayer.hashed(qkv)) is not None:
            found.append(_statistics(name, hashed, nearest, queries, seed))

    was_training = model.training
    try:
        observe(model.eval(), tokens, look)
    finally:
        model.train(was_training)
    return found


def observe(model: ReformerLM, tokens: Tensor, show: Callable[[str, Attention, tuple[Tensor, ...]], None]) -> None:
    """Show every attention sub-layer on a text, int64 [batch, length]: its layer's name, itself, and the queries, keys
    and values of all its heads, as `attend` takes them."""

    def shown(coupling: AttentionCoupling, heads: slice, qkv: tuple[Tensor, ...]) -> None:
        show(coupling.name.removesuffix(" attention"), coupling.sublayer, qkv)

    sequence = dataclasses.replace(model.sequence, chunk_heads=model.config.n_heads)  # all heads at once
    pair = begin(sequence.streams, model.embed(tokens), model.embedding_weight())
    sequence.run(pair, PassContext(model.rotary()), observer=shown)


def _statistics(name: str, hashed: Hashed, nearest: int, queries: int, seed: int) -> HashStatistics:
    k, buckets = hashed.keys[0], hashed.buckets[:, 0]
    length, ids = k.shape[1], buckets.long()
    time = torch.arange(length, device=k.device)
    order = torch.argsort(ids, dim=-1, stable=True)
    rank = torch.empty_like(order).scatter_(-1, order, time.expand_as(order))
    counts = torch.zeros(*ids.shape[:2], max(hashed.sizes), dtype=torch.int64, device=k.device)
    counts.scatter_add_(-1, ids, torch.ones_like(ids))
    shares = counts / length
    first = counts.cumsum(-1) - counts
    earlier = rank - first.gather(-1, ids)  # of its bucket
    windows = torch.tensor(hashed.windows, device=k.device)[:, None, None]
    lost = (earlier - (windows - 1)).clamp_min(0).sum(-1) / earlier.sum(-1).clamp_min(1)
    draw = torch.Generator().manual_seed(seed)
    picked = (nearest + torch.randperm(length - nearest, generator=draw)[:queries]).to(k.device)
    scores = k[:, picked] @ k.transpose(1, 2)
    scores.masked_fill_(time >= picked[:, None], -torch.inf)
    top = scores.topk(nearest, -1).indices  # [heads, queries, nearest]
    seen = torch.zeros(top.shape, dtype=torch.bool, device=k.device)
    for r, window in enumerate(hashed.windows):

        def at(x: Tensor, r: int = r) -> tuple[Tensor, Tensor]:
            return x[r][:, picked, None], x[r].gather(-1, top.flatten(1)).view(top.shape)

        mine, others = at(ids)
        place, places = at(rank)
        seen |= (mine == others) & (place - places < window)
    effective, found = 1 / shares.square().sum(-1), seen.float().mean((1, 2))
    return HashStatistics(name, effective, shares.amax(-1), lost, found, nearest)
