"""What decoding holds in memory, from the settings alone."""

from __future__ import annotations

from reformer.config import ReformerConfig


def largest_state(config: ReformerConfig, tokens: int, batch: int) -> int:
    """Bytes that decoding may hold after so many tokens, in float32: an upper bound, exact for what grows."""
    pair = 2 * config.d_head * 4  # a key and a value
    total = 2 * config.shorten * config.d_model * 4 if config.shorten > 1 else 0
    published = config.pattern == "published"
    for n in range(config.n_layers):
        kind = config.layers[n % len(config.layers)]
        local, lsh = {"mixed": config.head_split, "lsh": (0, config.n_heads)}.get(kind, (config.n_heads, 0))
        seen = tokens // config.shorten if n in config.group_layers else tokens
        window = 2 * seen if kind == "full" else config.local_window * (1 + published)
        windows, sizes = [w * (1 + published) for w in config.round_windows], config.round_buckets
        slots = sum(n * w for n, w in zip(sizes, windows, strict=True))
        rounds = len(windows)
        used = min(slots, rounds * seen)
        total += local * window * pair + lsh * (used * (pair + 8 + 4 * rounds) + 8 * sum(sizes))
        total += lsh * (config.key_tokens - 1) * config.d_head * 4
    return batch * total
