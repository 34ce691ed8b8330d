"""A trained model with another number of hash rounds or of buckets, or with full attention in the hash's place.

Rounds are drawn independently, so that a model can be evaluated with more or fewer of them than it was trained with:
more find more of what a query looks for (paper, section 5 and table 2). Of a bucket the last tokens alone are seen, so
that a round looks about as far back as buckets x window tokens; a longer text wants more buckets in one of them.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reformer.config import ReformerConfig
from reformer.layers.init import draw_rotations
from reformer.model import ReformerLM
from reformer.ops.lsh_hash import rotation_width

__all__ = ["FULL", "MOST", "Rounds", "check_hashed", "draw_rotations", "far_config", "with_far_buckets", "with_rounds"]

FULL = "full"
Rounds = int | str  # a number of rounds, or FULL
MOST, LONGEST = 64, 2**20  # rounds, and tokens that full attention can see


def check_hashed(config: ReformerConfig) -> None:
    """Raises ValueError for a model without LSH heads."""
    if not {"mixed", "lsh", "chunked_lsh"} & set(config.attn_layers):
        raise ValueError(f"this model has no LSH heads (attn_layers: {', '.join(config.attn_layers)})")


def with_rounds(model: ReformerLM, rounds: Rounds, length: int = LONGEST) -> ReformerLM:
    """The same weights with `rounds` hash rounds in every LSH head, beside the far one.

    The rounds it was trained with come first, then new ones: round r of a layer is drawn from the model's seed, the
    layer and r alone, so that 8 rounds contain the 4. FULL: every LSH head sees
    all earlier positions of a text of at most `length` tokens, with the same query-key vectors, values and
    temperature; quadratic in time, and for `forward` alone: decoding would hold `length` entries of its one bucket for
    every new token. Raises ValueError for a model without LSH heads or too long a text.
    """
    config = model.config
    check_hashed(config)
    if rounds == FULL:
        return _full(model, length)
    config = dataclasses.replace(config, n_hashes=int(rounds))
    return _rebuilt(model, config, lambda name, trained: _rotations(trained, config, name))


def with_far_buckets(model: ReformerLM, buckets: int) -> ReformerLM:
    """The same weights with a far round of `buckets` buckets, whether or not it was trained with one, beside the rounds
    that it was trained with; 0: without one. Every bucket of a hash like theirs is split by further directions, drawn
    from the model's seed, the layer and the number of parts. Raises ValueError as `far_config`."""
    old, config = model.config, far_config(model.config, buckets)
    if config.hash_factors == old.hash_factors:
        return model
    width, parts = rotation_width(config.n_buckets), config.hash_factors[-1]

    def beside(name: str, trained: Tensor) -> Tensor:
        heads, d = trained.shape[:2]
        near = trained[:, :, int(old.has_far_round) :, :width]
        if not config.has_far_round:
            return near
        far = trained[:, :, :1, :width]
        if not old.has_far_round:
            far = _drawn((heads, d, 1, width), f"{old.seed} {name} far").to(trained)
        last = _drawn((heads, d, 1, parts // 2), f"{old.seed} {name} far in {parts}").to(trained)
        unused = trained.new_zeros(heads, d, near.shape[2], parts // 2)
        return torch.cat([torch.cat([far, last], 3), torch.cat([near, unused], 3)], 2)

    return _rebuilt(model, config, beside)


def far_config(config: ReformerConfig, buckets: int) -> ReformerConfig:
    """The config of `with_far_buckets`. Raises ValueError for a model without LSH heads or in chunks, and for what is
    no even multiple of its other rounds' buckets."""
    check_hashed(config)
    if config.chunked:
        raise ValueError("attention in chunks has no hash round that looks further back")
    if faults := config.far_faults(buckets):
        raise ValueError(*faults)
    return dataclasses.replace(config, far_buckets=buckets)


def _rebuilt(model: ReformerLM, config: ReformerConfig, rotations: Callable[[str, Tensor], Tensor]) -> ReformerLM:
    """A model of this config with the same weights; rotations: name, the trained ones -> those it hashes with."""
    weights = dict(model.state_dict())
    for name, tensor in weights.items():
        if name.endswith(".rotations"):
            weights[name] = rotations(name, tensor)
    return ReformerLM.from_tensors(config, weights)


def _full(model: ReformerLM, length: int) -> ReformerLM:
    if length > LONGEST:
        raise ValueError(f"full attention sees at most {LONGEST:,} tokens, the text has {length:,}")
    config = model.config
    if config.chunked:
        # One chunk as long as the text: a query meets all of it, and sees what is earlier.
        chunk = -(-length // config.local_window) * config.local_window
        config = dataclasses.replace(config, n_hashes=1, lsh_window=chunk)
        return _rebuilt(model, config, lambda name, trained: trained[:, :, :1])
    found = _rebuilt(model, config, lambda name, trained: trained)
    for sublayer in found.attention():
        sublayer.attend_to_all(length)
    return found


def _rotations(trained: Tensor, config: ReformerConfig, name: str) -> Tensor:
    """[heads, d_head, rounds, width]: the trained rounds, cut or gone on with."""
    n = len(config.hash_rounds)
    rounds = [trained[:, :, :n]]
    heads, d, known, width = trained.shape
    for r in range(known, n):
        rounds.append(_drawn((heads, d, 1, width), f"{config.seed} {name} {r}").to(trained))
    return torch.cat(rounds, 2)


def _drawn(shape: Sequence[int], what: str) -> Tensor:
    """Normal numbers that are the same whenever the same is asked for."""
    generator = torch.Generator().manual_seed(zlib.crc32(what.encode()))
    return torch.empty(*shape).normal_(generator=generator)
