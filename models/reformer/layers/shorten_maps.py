"""The two maps between tokens and groups of them: down to the shortened layers and up again (arXiv 2110.13711)."""

from __future__ import annotations

from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.layers.norm import make_norm
from reformer.ops.linear import project


class ShortenMaps(nn.Module):
    """size: tokens of a group."""

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        d, self.size, self.backend = config.d_model, config.shorten_factor, config.backend
        self.rms = config.block_style == "modern"
        # project has the RMS norm inside
        self.norm_down, self.norm_up = (nn.Identity() if self.rms else make_norm(config, n) for n in (self.size * d, d))
        self.down = nn.Linear(self.size * d, d, bias=False)
        self.output = nn.Linear(d, self.size * d, bias=False)

    def downsample(self, x: Tensor) -> Tensor:
        """Rows of whole groups [batch, groups * size, d_model] -> [batch, groups, d_model]."""
        flat = x.reshape(-1, self.down.in_features)
        (h,) = project(self.norm_down(flat), self.down.weight, 1, 1, None, None, rms=self.rms, backend=self.backend)
        return h.view(len(x), -1, h.shape[-1])

    def upsample(self, h: Tensor) -> Tensor:
        """[batch, groups, d_model] -> what they give to their tokens [batch, groups * size, d_model]."""
        (x,) = project(
            self.norm_up(h.flatten(0, 1)), self.output.weight, 1, self.size, None, None, rms=self.rms,
            backend=self.backend,
        )  # fmt: skip
        return x.view(len(h), -1, h.shape[-1])
