"""What benchmarks/gpu.py measures: each part yields rows (system, case, measure, value, unit) as it finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from gpu_attention import kernel, tilings
from gpu_bench import Bench, Row, autocast_of, timed
from gpu_train import graphed, train, update
from reformer.reversible.autograd import reversible
from systems import SIZES, SYSTEMS, tokens


def machine(bench: Bench) -> Iterator[Row]:
    """What the GPU can do: bytes copied (read and written) and products, with the libraries' own kernels."""
    n = 2**30 if bench.gpu else 2**20
    a = torch.empty(n, dtype=torch.uint8, device=bench.device)
    b = torch.empty_like(a)
    yield "machine", f"{n} bytes", "copy", 2 * n / bench.seconds(lambda: b.copy_(a)), "bytes/s"
    size = 8192 if bench.gpu else 128
    for dtype in (torch.bfloat16, torch.float32):
        x, y = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.")
        yield "machine", f"{name} {size}", "products", 2 * size**3 / bench.seconds(lambda x=x, y=y: x @ y), "FLOP/s"


def layer(bench: Bench) -> Iterator[Row]:
    """One layer of the novel model, forward and backward, without head and loss: ours and full attention."""
    for length in bench.lengths:
        for system in ("reformer", "full attention"):

            def measured(system=system, length=length) -> list[Row]:
                model = SYSTEMS[system](length, bench.device, 1)[0]
                text = tokens(length, bench.device)[:, :length]
                upper = torch.randn(1, length, SIZES["d_model"], device=bench.device)

                def work() -> None:
                    with autocast_of(bench):
                        h = reversible(model.new_pass(text), model.embedding_weight())
                    h.backward(upper)

                return timed(bench, system, f"{length} tokens", length, work)

            power = 2 if system == "full attention" else 1
            yield from bench.tried(system, f"{length} tokens", length, power, measured)


def step(bench: Bench) -> Iterator[Row]:
    """A training step (forward and backward) of the novel model and of the peers at its sizes."""
    for length in bench.lengths:
        for system in SYSTEMS:

            def measured(system=system, length=length) -> list[Row]:
                model, loss_of = SYSTEMS[system](length, bench.device)
                batch = tokens(length, bench.device)

                def work() -> None:
                    model.zero_grad(set_to_none=True)
                    with autocast_of(bench):
                        loss = loss_of(batch)
                    loss.backward()

                rows = timed(bench, system, f"{length} tokens", length, work)
                return rows + (graphed(bench, f"{length} tokens", length, work) if system == "reformer" else [])

            power = 2 if system == "full attention" else 1
            yield from bench.tried(system, f"{length} tokens", length, power, measured)


def decode(bench: Bench) -> Iterator[Row]:
    """One more token after a context, of one text and of 64 at once, and what reading that context takes: ours, and the
    same model with full attention."""
    for length in bench.lengths:
        for system in ("reformer", "full attention"):
            for texts in (1, 64):
                work = partial(_decode, bench, system, length, texts if bench.gpu else 1 + texts // 64)
                power = 2 if system == "full attention" else 1
                yield from bench.tried(system, f"after {length} tokens, {texts} texts", length, power, work)


def _decode(bench: Bench, system: str, length: int, texts: int) -> list[Row]:
    model = SYSTEMS[system](length, bench.device)[0].eval()
    prompt = tokens(length, bench.device)[:, :length].repeat(texts, 1)
    case = f"after {length} tokens, {texts} texts"
    with torch.no_grad():
        prefill = bench.seconds(lambda: model.extend(prompt, None, last_only=True))
        state = model.extend(prompt, None, last_only=True)[1]
        one = prompt[:, :1].contiguous()
        seconds = bench.seconds(lambda: model.extend(one, state))
    return [
        (system, case, "prefill", prompt.numel() / prefill, "tokens/s"),
        (system, case, "token", seconds, "s"),
        (system, case, "speed", texts / seconds, "tokens/s"),
    ]


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "machine": machine, "train": train, "step": step, "decode": decode, "kernel": kernel, "layer": layer,
    "tilings": tilings, "update": update,
}  # fmt: skip
# (part, system, length): what is wanted most comes first and peers last; each is a process of its own.
CASES: list[tuple[str, str, int]] = [
    ("machine", "", 0), ("train", "reformer", 0), ("tilings", "", 65_536), ("update", "", 0),
    ("step", "reformer", 65_536), ("step", "reformer", 524_288),
    ("decode", "reformer", 4_096), ("kernel", "reformer", 1_048_576), ("step", "reformer", 1_048_576),
    ("train", "full attention", 0), ("step", "full attention", 65_536), ("step", "reformer", 4_096),
    ("step", "full attention", 524_288), ("kernel", "", 65_536), ("layer", "", 65_536),
    ("decode", "full attention", 4_096), ("step", "transformers", 65_536), ("step", "reformer-pytorch", 65_536),
    ("step", "transformers", 4_096), ("step", "reformer-pytorch", 524_288),
]  # fmt: skip
