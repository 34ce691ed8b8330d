"""How fast this machine trains: what is chosen for so many minutes depends on how much text it reads in them."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from reformer import ReformerLM
from reformer.config import Backend, ReformerConfig

from reformer_cli.config.schema import GRADIENT_CLIP, TrainConfig
from reformer_cli.training.auto_config import BASE_SIZE, BASE_VOCABULARY, TOKENS_PER_STEP
from reformer_cli.training.cost import ONE_CORE, Card, card_of
from reformer_cli.training.memory import Step
from reformer_cli.training.mixed_precision import products_in
from reformer_cli.training.optimizers import make_optimizers, prime

STEPS, SECONDS = 40, 2.5  # steps at most, and after how long no other is begun: the first seconds are the fastest
COPIED, WIDTH = 2**28, 8192  # bytes and rows of what an unknown GPU is measured with


def machine(device: str, precision: str, processes: int = 1, backend: Backend = "auto") -> Card:
    """This one, of so many processes like this. A CPU is measured with a step of the base size; a GPU is looked up, or
    measured where no table has it."""
    if device != "cpu":
        known = card_of(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None
        card = known or _gpu(device)
        return card.scaled(processes)
    model = BASE_SIZE.model(BASE_VOCABULARY)
    model = ReformerConfig(**(vars(model) | {"dropout": 0.1, "backend": backend}))
    step = Step(model, TOKENS_PER_STEP // BASE_SIZE.context, BASE_SIZE.context, precision, 0, True)
    measured = ONE_CORE.scaled(processes * ONE_CORE.seconds(step) / step_seconds(step))
    return replace(measured, name="this CPU")


def step_seconds(step: Step) -> float:
    """Of a whole training step on this CPU: forward, backward, clipping, optimiser. The median of some, the first one
    (which compiles) not counted."""
    model = ReformerLM(step.model).train()
    config = TrainConfig(optimizer=step.optimizer)  # type: ignore[arg-type]
    optimizers = make_optimizers(model, config)
    prime(optimizers)
    shape = (step.rows, step.context)
    tokens = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    found: list[float] = []
    began = time.perf_counter()
    for n in range(STEPS + 1):
        start = time.perf_counter()
        with products_in(step.precision, "cpu"):
            model.loss(tokens, tokens, dropout_seed=n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if n:
            found.append(time.perf_counter() - start)
            if time.perf_counter() - began > SECONDS:
                break
    return statistics.median(found) * step.accumulate


def _gpu(device: str) -> Card:
    """Of a GPU that no table has."""

    def best(work: object) -> float:
        seconds = []
        for _ in range(5):
            torch.accelerator.synchronize(device)
            start = time.perf_counter()
            work()  # type: ignore[operator]
            torch.accelerator.synchronize(device)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    one = torch.empty(COPIED, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    a = torch.ones(WIDTH, WIDTH, dtype=torch.bfloat16, device=device)
    copy, product = best(lambda: other.copy_(one)), best(lambda: a @ a)
    if device.startswith("mps"):
        memory, name = torch.mps.recommended_max_memory(), "Apple GPU"
    else:
        memory, name = torch.cuda.get_device_properties(device).total_memory, torch.cuda.get_device_name(device)
    return Card("gpu", name, memory, 2 * COPIED / copy, 2 * WIDTH**3 / product, True)
