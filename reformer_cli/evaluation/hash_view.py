"""What LSH heads see on a text: which earlier tokens each round reaches, how full buckets are, what is missed.

Everything here is dense, by the definitions that attention is tested against: for texts of some thousand tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from reformer import ReformerLM
from reformer.analysis import Attention, observe
from torch import Tensor

NEAREST = 16  # true top keys that a query is asked for
PIXELS = 384  # of a side of a picture, at most


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
class LayerSummary:
    """What is reported and drawn of a layer. raster: [side, side], in how many rounds and heads a token (row) sees an
    earlier one, the most of a square; sizes: [rounds, buckets], tokens, fullest first."""

    layer: str
    reach: list[Reach]
    raster: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.float32]


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

    def summary(self) -> LayerSummary:
        """Without what only the text itself needs."""
        n = self.scores.shape[-1]
        step = -(-n // PIXELS)
        side = -(-n // step)
        padded = np.zeros((side * step, side * step), np.float32)
        padded[:n, :n] = self.seen.sum((0, 1)).numpy()
        raster = padded.reshape(side, step, side, step).max((1, 3))
        return LayerSummary(self.layer, self.reach(), raster, self.sizes.float().mean(1).numpy())

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

    def view(name: str, sublayer: Attention, qkv: tuple[Tensor, ...]) -> None:
        if (found := sublayer.dense_view(qkv, sublayer.all_heads)) is None:
            return
        tokens_of_a_row = 1
        if found.scores.shape[-1] < len(tokens):
            tokens_of_a_row = model.config.shorten_factor
            name = f"{name}, groups of {tokens_of_a_row}"
        scores, seen, together = found.scores[0].float().cpu(), found.seen[:, 0].cpu(), found.together[0].cpu()
        sizes, window = _sizes(found.buckets[:, 0]).cpu(), model.config.local_window
        show(LayerView(name, scores, seen, together, sizes, window, tokens_of_a_row))

    observe(model, tokens[None], view)


def _sizes(buckets: Tensor) -> Tensor:
    """[rounds, heads, n] -> tokens in each bucket [rounds, heads, buckets], fullest first."""
    ids = buckets.long()
    counts = torch.zeros(*ids.shape[:2], int(ids.max()) + 1, dtype=torch.int64, device=ids.device)
    return counts.scatter_add_(-1, ids, torch.ones_like(ids)).sort(-1, descending=True).values
