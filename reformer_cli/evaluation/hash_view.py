"""What LSH heads see on a text: which earlier tokens each round reaches, how full buckets are, what is missed.

Everything here is dense, by the definitions in ops/bucket_attention/reference.py: for texts of some thousand tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from reformer import ReformerLM
from reformer.attention.chunked import PublishedLSHHeads
from reformer.attention.lsh import LSHHeads
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.reference import met, visible
from reformer.reversible.autograd import begin
from reformer.reversible.coupling import AttentionCoupling
from torch import Tensor

NEAREST = 16  # true top keys that a query is asked for


@dataclass(frozen=True)
class Reach:
    """Of one layer, a mean over its heads; of one round, or all rounds together (round None).

    effective_buckets: 1 / sum of squared shares, as many as there are if all are equally full; largest_bucket: share of
    the text in the fullest. reached: earlier tokens that a token sees. distance: [median, furthest] of those, in
    tokens. top_found: of a token's NEAREST true top keys (those of the highest scores among all earlier ones), the
    share it sees. far_weight: the share of attention paid to tokens beyond the local window.
    """

    layer: str
    round: int | None
    effective_buckets: float | None
    largest_bucket: float | None
    reached: float
    distance: tuple[float, float]
    top_found: float
    far_weight: float


@dataclass(frozen=True)
class Seen:
    """A token that another one reaches: where it is, in which rounds (of which the first is 0), and the attention it
    gets."""

    layer: str
    head: int
    position: int
    rounds: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class LayerView:
    """One layer's LSH heads on a text of n tokens, or of n groups of `tokens`: scores [heads, n, n] of all pairs, seen
    bool [rounds, heads, n, n], together bool [heads, n, n], and sizes int64 [rounds, heads, buckets], fullest first;
    window: tokens."""

    layer: str
    scores: Tensor
    seen: Tensor
    together: Tensor
    sizes: Tensor
    window: int
    tokens: int = 1

    @property
    def weights(self) -> Tensor:
        """[heads, n, n]: attention as the layer pays it."""
        return torch.softmax(self.scores.masked_fill(~self.together, -torch.inf), -1).nan_to_num(0.0)

    def reach(self) -> list[Reach]:
        """Round by round, then all together."""
        n = self.scores.shape[-1]
        time = torch.arange(n)
        earlier = time[:, None] > time
        top = self.scores.masked_fill(~earlier, -torch.inf).topk(min(NEAREST, n - 1), -1).indices[:, NEAREST:]
        weights = self.weights
        far = ((time[:, None] - time) * self.tokens >= self.window) & earlier
        paid = weights.sum().clamp_min(1e-9)
        shares = self.sizes / n
        found = []
        for r in [*range(len(self.seen)), None]:
            seen = self.together if r is None else self.seen[r]
            back = (time[:, None] - time).expand_as(seen)[seen].float() * self.tokens
            hit = seen[:, NEAREST:].gather(-1, top).float().mean() if top.numel() else torch.tensor(torch.nan)
            found.append(
                Reach(
                    self.layer,
                    r,
                    float((1 / shares[r].square().sum(-1)).mean()) if r is not None else None,
                    float(shares[r].amax(-1).mean()) if r is not None else None,
                    float(seen.sum() / (seen.shape[0] * n)) * self.tokens,
                    (float(back.median()), float(back.max())) if len(back) else (0.0, 0.0),
                    float(hit),
                    float((weights * (seen & far)).sum() / paid),
                )
            )
        return found

    def reached_from(self, position: int, most: int) -> list[Seen]:
        """What the token at a position sees, of each head the `most` it attends to most; of groups, what the last whole
        one then sees, each at its last token."""
        found: list[Seen] = []
        own = (position + 1) // self.tokens - 1
        if own < 0:
            return found
        for head, row in enumerate(self.weights[:, own]):
            for j in row.argsort(descending=True, stable=True)[:most].tolist():
                if self.together[head, own, j]:
                    rounds = self.seen[:, head, own, j].nonzero().flatten().tolist()
                    found.append(Seen(self.layer, head, (j + 1) * self.tokens - 1, tuple(rounds), float(row[j])))
        return found


@torch.inference_mode()
def look(model: ReformerLM, tokens: Tensor, show: Callable[[LayerView], None]) -> None:
    """Show every layer's LSH heads on a text, int64 [n], one layer after another."""

    def watch(coupling: AttentionCoupling, group: slice, parts: tuple[Tensor, ...]) -> None:
        if isinstance(coupling.sublayer, (LSHHeads, PublishedLSHHeads)):
            name, among = coupling.name.removesuffix(" attention"), parts[0].shape[2] < len(tokens)
            view = _view(name, coupling.sublayer, group, parts)
            if among:
                name, size = f"{name}, groups of {model.config.shorten}", model.config.shorten
                view = dataclasses.replace(view, layer=name, tokens=size)
            show(view)

    sequence = dataclasses.replace(model.sequence, chunk_heads=model.config.n_heads)  # one view a layer
    pair = begin(sequence.streams, model.embed(tokens[None]), model.embedding_weight())
    sequence.run(pair, PassContext(model.rotary()), observer=watch)


def _view(name: str, branch: LSHHeads | PublishedLSHHeads, group: slice, parts: tuple[Tensor, ...]) -> LayerView:
    if isinstance(branch, PublishedLSHHeads):
        q, k, _ = branch.queries_keys_values(parts)
        buckets, chunk, n = branch.buckets(q, group), branch.chunk, q.shape[2]
        earlier = torch.ones(n, n, dtype=torch.bool, device=q.device).tril(-1)
        # Alone, a round's first chunk looks back to its own last one, in the layer to that of the round before.
        seen = torch.stack([(met(b[None], chunk) > 0) & earlier for b in buckets])
        count = met(buckets, chunk)
        together, scores = (count > 0) & earlier, q @ k.transpose(-1, -2) + count.clamp_min(1).log()
    else:
        q = k = branch.keys(parts[0], group)
        buckets = branch.buckets(k, group)
        rounds = list(zip(buckets, branch.windows, strict=True))
        seen = torch.stack([visible(b[None], [w], itself=False) for b, w in rounds])
        together, scores = seen.any(0), q @ k.transpose(-1, -2)
    return LayerView(
        name, scores[0].float().cpu(), seen[:, 0].cpu(), together[0].cpu(), _sizes(buckets[:, 0]).cpu(),
        branch.config.local_window,
    )  # fmt: skip


def _sizes(buckets: Tensor) -> Tensor:
    """[rounds, heads, n] -> tokens in each bucket [rounds, heads, buckets], fullest first."""
    ids = buckets.long()
    counts = torch.zeros(*ids.shape[:2], int(ids.max()) + 1, dtype=torch.int64, device=ids.device)
    return counts.scatter_add_(-1, ids, torch.ones_like(ids)).sort(-1, descending=True).values
