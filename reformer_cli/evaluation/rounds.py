"""A trained model with another number of hash rounds or of buckets, or with full attention in the hash's place.

Rounds are drawn independently, so that a model can be evaluated with more or fewer of them than it was trained with:
more find more of what a query looks for (paper, section 5 and table 2). Of a bucket the last tokens alone are seen, so
that a model looks about as far back as buckets x window tokens; a longer text wants more buckets.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import zlib
from collections.abc import Callable, Sequence

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.ops.lsh_hash import rotation_width
from torch import Tensor

from reformer_cli.errors import UserError

FULL = "full"
Rounds = int | str  # a number of rounds, or FULL
MOST, LONGEST = 64, 2**20  # rounds, and tokens that full attention can see (`local_round`)


def parse_rounds(text: str) -> list[Rounds]:
    """'1,2,full' -> [1, 2, 'full']. Raises UserError."""
    found: list[Rounds] = []
    for part in text.split(","):
        word = part.strip()
        if word == FULL:
            found.append(FULL)
        elif word.isascii() and word.isdigit() and 1 <= int(word) <= MOST:
            found.append(int(word))
        else:
            raise UserError(f"--rounds {word!r} is not a number from 1 to {MOST} or {FULL!r}", "such as 1,2,4,8,full")
    return found


def check_hashed(config: ReformerConfig, hint: str = "leave --rounds out") -> None:
    """Raises UserError for a model without LSH heads."""
    if not {"mixed", "lsh"} & set(config.layers):
        raise UserError(f"this model has no LSH heads (layers: {', '.join(config.layers)})", hint)


def with_rounds(model: ReformerLM, rounds: Rounds, length: int = LONGEST) -> ReformerLM:
    """The same weights with `rounds` hash rounds in every LSH head.

    The rounds it was trained with come first, then new ones: round r of a layer is drawn from the model's seed, the
    layer and r alone, so that 8 rounds contain the 4. Windows go on cycling over the rounds. FULL: every LSH head sees
    all earlier positions of a text of at most `length` tokens, with the same query-key vectors, values (`next` or
    `same`) and temperature; quadratic in time, and for `forward` alone: decoding would hold `length` entries of its
    one bucket for every new token. Raises UserError for a model without LSH heads or too long a text.
    """
    config = model.config
    check_hashed(config)
    config = _full(config, length) if rounds == FULL else dataclasses.replace(config, n_hashes=int(rounds))
    return _rebuilt(model, config, lambda name, trained: _rotations(trained, config, name))


def with_buckets(model: ReformerLM, buckets: int) -> ReformerLM:
    """The same weights with `buckets` buckets a round: every bucket of the trained ones is split by further directions,
    drawn from the model's seed, the layer, the round and the number of parts; or the first of the trained factors are
    left alone. Nested rounds keep the buckets that they have. Raises UserError as `split_buckets`."""
    config = split_buckets(model.config, buckets)
    if config == model.config:
        return model
    if len(config.n_buckets) < len(model.config.n_buckets):
        width = rotation_width(config.n_buckets)
        return _rebuilt(model, config, lambda _, trained: trained[..., :width])
    parts = config.n_buckets[-1]

    def split(name: str, trained: Tensor) -> Tensor:
        heads, d, rounds, _ = trained.shape
        drawn = [_drawn((heads, d, 1, parts // 2), f"{config.seed} {name} {r} in {parts}") for r in range(rounds)]
        return torch.cat([trained, torch.cat(drawn, 2).to(trained)], 3)

    return _rebuilt(model, config, split)


def split_buckets(config: ReformerConfig, buckets: int) -> ReformerConfig:
    """The config of `with_buckets`. Raises UserError for a model without LSH heads, and for what is neither an even
    multiple of its buckets nor a product of its first factors."""
    check_hashed(config, "leave --buckets out")
    products = list(itertools.accumulate(config.n_buckets, operator.mul))
    if buckets in products:
        return dataclasses.replace(config, n_buckets=config.n_buckets[: products.index(buckets) + 1])
    trained = products[-1]
    parts, rest = divmod(buckets, trained)
    if rest or parts % 2 or not parts:
        raise UserError(
            f"--buckets {buckets:,} is no even multiple of the {trained:,} that the model was trained with "
            f"(n_buckets {list(config.n_buckets)})",
            f"such as {8 * trained:,}, or one of {', '.join(f'{p:,}' for p in products)}",
        )
    return dataclasses.replace(config, n_buckets=(*config.n_buckets, parts))


def _rebuilt(model: ReformerLM, config: ReformerConfig, rotations: Callable[[str, Tensor], Tensor]) -> ReformerLM:
    """A model of this config with the same weights; rotations: name, the trained ones -> those it hashes with."""
    with torch.device("meta"):
        other = ReformerLM(config)
    weights = dict(model.state_dict())
    for name, tensor in weights.items():
        if name.endswith(".rotations"):
            weights[name] = rotations(name, tensor)
    other.load_state_dict(weights, assign=True)
    if config.tie_embeddings:
        other.head.weight = other.embedding
    return other.eval()


def _full(config: ReformerConfig, length: int) -> ReformerConfig:
    if length > LONGEST:
        raise UserError(f"full attention sees at most {LONGEST:,} tokens, the text has {length:,}", "leave it out")
    if config.pattern == "published":
        # One chunk as long as the text: a query meets all of it, and sees what is earlier.
        chunk = -(-length // config.local_window) * config.local_window
        return dataclasses.replace(config, n_hashes=1, windows=(chunk,))
    return dataclasses.replace(config, n_hashes=1, local_round=length)


def _rotations(trained: Tensor, config: ReformerConfig, name: str) -> Tensor:
    """[heads, d_head, rounds, width]: the trained rounds, cut or gone on with."""
    rounds = [trained[:, :, : config.n_hashes]]
    heads, d, known, width = trained.shape
    for r in range(known, config.n_hashes):
        rounds.append(_drawn((heads, d, 1, width), f"{config.seed} {name} {r}").to(trained))
    return torch.cat(rounds, 2)


def _drawn(shape: Sequence[int], what: str) -> Tensor:
    """Normal numbers that are the same whenever the same is asked for."""
    generator = torch.Generator().manual_seed(zlib.crc32(what.encode()))
    return torch.empty(*shape).normal_(generator=generator)
