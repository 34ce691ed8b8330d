"""Time of one more value of an image of 64 x 64 pixels, near its end: recipe imagenet64 and transformers' Reformer.

    python benchmarks/pixels.py [--batches 1 8] [--seconds 10] [--systems reformer transformers]

Weights are random: they decide what is drawn, not how long it takes. The peer has the same sizes, all layers hashed as
published (192 buckets, 2 rounds, chunks of 128), two axes of positions (it evaluates no more) and a fixed hash_seed,
without which it compares buckets of different rotations; its image is read once and repeated for a batch. A pixel is
three values. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import record
import torch
from reformer import ReformerConfig, ReformerLM
from torch import Tensor

from reformer_cli.config.load import load_config, resolve
from reformer_cli.tokenizers.base import PixelTokenizer
from reformer_cli.utils.devices import keep_freed_memory

VALUES = PixelTokenizer.vocab_size
RECIPE, MOST = "imagenet64", 60  # values that are timed at most, the last of the image
LEAST = 5
Step = Callable[[Tensor], Tensor]  # newest values [batch, 1] -> logits of the next


def reformer(config: ReformerConfig, image: Tensor, batch: int) -> Step:
    model, state = ReformerLM(config).eval(), None
    for part in image.split(4096, 1):
        _, state = model.extend(part, state, last_only=True)
    assert state is not None
    kept = state.select(torch.zeros(batch, dtype=torch.int64))
    return lambda newest: model.extend(newest, kept)[0][:, -1]


def transformers(config: ReformerConfig, image: Tensor, batch: int) -> Step:
    from transformers import ReformerConfig as Config
    from transformers import ReformerModelWithLMHead

    (buckets,), chunk = config.n_buckets, config.lsh_window
    (height, width, colours), (rows, columns, channels) = config.axial_shape, config.axial_dims
    model = ReformerModelWithLMHead(Config(
        vocab_size=config.vocab_size, hidden_size=config.d_model, num_attention_heads=config.n_heads,
        attention_head_size=config.d_head, feed_forward_size=config.d_ff, attn_layers=["lsh"] * config.n_layers,
        num_hashes=config.n_hashes, num_buckets=buckets, lsh_attn_chunk_length=chunk, is_decoder=True,
        hidden_act="gelu", axial_pos_shape=(height, width * colours), axial_pos_embds_dim=(rows, columns + channels),
        hash_seed=0, max_position_embeddings=config.max_length, hidden_dropout_prob=0.0, use_cache=True,
    )).eval()  # fmt: skip
    cache = model(input_ids=image, use_cache=True).past_buckets_states
    for held in (cache.states_cache, cache.buckets_cache):
        held[:] = [x.expand(batch, *x.shape[1:]).contiguous() if x.numel() else x for x in held]

    def step(newest: Tensor) -> Tensor:
        nonlocal cache
        out = model(input_ids=newest, past_buckets_states=cache, use_cache=True)
        cache = out.past_buckets_states
        logits: Tensor = out.logits[:, -1]
        return logits

    return step


SYSTEMS = {"reformer": reformer, "transformers": transformers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seconds", type=float, default=10.0, help="to spend on each measurement, after reading")
    given = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    resolved = resolve(load_config(RECIPE), VALUES)
    length = resolved.data.context
    image = torch.randint(VALUES - 1, (1, length - MOST))
    rows: list[tuple[str, str, str, float, str]] = []
    for batch in given.batches:
        for system in given.systems:
            with torch.inference_mode():
                step = SYSTEMS[system](resolved.model, image, batch)
                times = timed(step, batch, given.seconds)
            ms = 1e3 * statistics.median(times[1:])
            case = f"{RECIPE}, values {length - MOST} to {length - MOST + len(times)}, batch {batch}"
            print(f"{system:<13} {case}: {ms:.1f} ms a value, {3 * ms:.1f} ms a pixel", flush=True)
            rows.append((system, case, "time of a value", ms, "ms"))
            del step
    record.append("cpu", "pixels", rows)


def timed(step: Step, batch: int, seconds: float) -> list[float]:
    """Seconds of each value."""
    newest, times, began = torch.full((batch, 1), 7), list[float](), time.perf_counter()
    while len(times) < MOST and (len(times) < LEAST or time.perf_counter() - began < seconds):
        start = time.perf_counter()
        newest = step(newest)[:, : VALUES - 1].argmax(-1, keepdim=True)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
