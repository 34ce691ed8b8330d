"""How fast this CPU trains: what is chosen for so many minutes depends on how much text it reads in them."""

from __future__ import annotations

import time

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.config import Backend

from reformer_cli.training.auto_config import BASE_SIZE, TOKENS_PER_STEP, VOCAB_SIZE
from reformer_cli.training.mixed_precision import products_in

STEPS, SECONDS = 4, 3.0  # steps at most, and after how long no other is begun


def tokens_per_minute(precision: str, processes: int = 1, backend: Backend = "auto") -> float:
    """Tokens that a model of the plan's size BASE_SIZE is trained on in a minute, by as many processes as this one.

    Measured: forward and backward of a step, the fastest of some, the first one (which compiles) not counted.
    """
    size = BASE_SIZE
    rows, seconds = TOKENS_PER_STEP // size.context, float("inf")
    model = ReformerLM(
        ReformerConfig(
            vocab_size=VOCAB_SIZE // 4, d_model=size.d_model, n_layers=size.n_layers, n_heads=size.n_heads,
            d_head=size.d_model // size.n_heads, dropout=0.1, backend=backend,
        )
    ).train()  # fmt: skip
    tokens = torch.randint(model.config.vocab_size, (rows, size.context), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    for n in range(STEPS + 1):
        start = time.perf_counter()
        with products_in(precision, "cpu"):
            model.loss(tokens, tokens, dropout_seed=n).backward()
        if n:
            seconds = min(seconds, time.perf_counter() - start)
            if time.perf_counter() - began > SECONDS:
                break
    return 60 * tokens.numel() * processes / seconds
