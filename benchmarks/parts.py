"""Where a training step's time goes: hash, sort, attention, projections, feed-forward, head, streams, optimiser.

    python benchmarks/parts.py [--length 65536] [--low] [--device cuda]

Functions are timed from outside, innermost first counted: what a part calls in another part is not its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import record
import torch
from reformer.attention import local, lsh
from reformer.backends.gpu import problem
from reformer.ops import linear
from reformer.ops.bucket_attention import native, pytorch
from reformer.reversible import autograd, streams
from systems import SYSTEMS, tokens

# (where it is called from, its name, the part it belongs to)
PLACES: list[tuple[Any, str, str]] = [
    (lsh, "lsh_hash", "hash"),
    (lsh, "make_recent", "sort"),
    (local, "make_window", "sort"),
    (native, "forward_pass", "attention"),
    (native, "backward_pass", "attention"),
    (pytorch, "forward_pass", "attention"),
    (pytorch, "backward_pass", "attention"),
    (linear._Project, "forward", "projections"),
    (linear._Project, "backward", "projections"),
    (linear._Linear, "forward", "projections"),
    (linear._Linear, "backward", "projections"),
    (linear._SquaredReluMLP, "forward", "feed-forward"),
    (linear._SquaredReluMLP, "backward", "feed-forward"),
    (autograd, "sliced_loss", "head and loss"),
    (streams.Streams, "add_", "streams"),
    (streams.Streams, "subtract_", "streams"),
    (streams.Streams, "read", "streams"),
]


class Clock:
    """Seconds a part, without those of the parts it calls."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds, self.inner = device, dict[str, float](), [0.0]

    def now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            start = self.now()
            self.inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                whole, called = self.now() - start, self.inner.pop()
                self.seconds[part] = self.seconds.get(part, 0.0) + whole - called
                self.inner[-1] += whole

        return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=65536)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--low", action="store_true", help="products in bfloat16")
    arguments = parser.parse_args()
    from reformer_cli.utils.devices import keep_freed_memory

    keep_freed_memory()
    model, step = SYSTEMS["reformer"](arguments.length, arguments.device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch, clock = tokens(arguments.length, arguments.device), Clock(arguments.device)

    def whole() -> None:
        with torch.autocast(arguments.device.split(":")[0], torch.bfloat16, enabled=arguments.low):
            step(batch).backward()
        clock.timed(optimizer.step, "optimiser")()
        optimizer.zero_grad()

    whole()  # warm
    places = list(PLACES)
    if arguments.device != "cpu" and not problem(torch.device(arguments.device)):
        from reformer.ops.bucket_attention import triton_launch

        places += [(triton_launch, "forward_pass", "attention"), (triton_launch, "backward_pass", "attention")]
    for owner, name, part in places:
        plain = getattr(owner, name)
        new = clock.timed(plain, part)
        setattr(owner, name, staticmethod(new) if isinstance(owner.__dict__[name], staticmethod) else new)
    clock.seconds.clear()
    start = clock.now()
    whole()
    total = clock.now() - start
    clock.seconds["other"] = total - sum(clock.seconds.values())
    precision = "bfloat16" if arguments.low else "float32"
    print(
        f"{arguments.length:,} tokens, products in {precision}: {total:.2f} s, {arguments.length / total:,.0f} tokens/s"
    )
    for part, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"  {part:<14} {seconds:7.3f} s  {seconds / total:6.1%}")
    case = f"{arguments.length} tokens, {precision}"
    rows = [("reformer", case, part, seconds, "s") for part, seconds in clock.seconds.items()]
    record.append(arguments.device, "parts", rows)


if __name__ == "__main__":
    main()
