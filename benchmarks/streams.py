"""What fixed-point streams cost and lose against streams of float32, and which unit is best.

    python benchmarks/streams.py [--steps 600] [--seeds 2]

The same small model is trained on the built-in text with both, from the same weights on the same batches; then the
trained one is evaluated with every unit. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import record
import torch
from reformer import NumericalError, ReformerConfig, ReformerLM
from reformer.layers.context import PassContext
from reformer.reversible.autograd import begin
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.streams import Streams
from torch import Tensor

from reformer_cli.config.schema import GRADIENT_CLIP, DataConfig, TrainConfig
from reformer_cli.data.batches import Batches
from reformer_cli.data.dataset import open_dataset
from reformer_cli.training.optimizers import make_optimizers
from reformer_cli.training.schedules import learning_rate
from reformer_cli.utils.devices import keep_freed_memory

SIZES = {"d_model": 128, "n_layers": 6, "n_heads": 4, "d_head": 32}
CONTEXT, BATCH = 512, 4


class FloatStreams(Streams):
    """Streams of float32: (x + f) - f is only nearly x."""

    def begin(
        self, shape: tuple[int, int, int], rows_of: Callable[[slice], Tensor], slices: Sequence[slice], where: str
    ) -> list[Tensor]:
        first = torch.empty(shape)
        for here in slices:
            first[:, here] = rows_of(here)
        return [first, first.clone()]

    def read(self, stream: Tensor) -> Tensor:
        return stream.clone()

    def add_(self, stream: Tensor, x: Tensor, where: str) -> None:
        stream += x

    def subtract_(self, stream: Tensor, x: Tensor) -> None:
        stream -= x


class FloatLM(ReformerLM):
    """The model with such streams."""

    @property
    def sequence(self) -> ReversibleSequence:
        found = super().sequence
        fields = {f.name: getattr(found.streams, f.name) for f in dataclasses.fields(found.streams)}
        return dataclasses.replace(found, streams=FloatStreams(**fields))


def train(kind: type[ReformerLM], config: ReformerConfig, batches: Batches, steps: int) -> tuple[ReformerLM, float]:
    """(the trained model, seconds a step)."""
    model = kind(config).train()
    settings = TrainConfig(steps=steps, learning_rate=4e-3)
    (optimizer,), seconds = make_optimizers(model, settings), []
    for step in range(steps):
        began = time.perf_counter()
        batch = batches.batch_at(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, settings)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch.tokens, batch.targets, batch.documents)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return model.eval(), sorted(seconds)[len(seconds) // 2]


@torch.no_grad()
def held_out(model: ReformerLM, tokens: Tensor) -> float:
    """Nats a token of held-out text in contexts."""
    rows = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    return float(model.loss(rows[:, :-1], rows[:, 1:]))


@torch.no_grad()
def rebuilt(model: ReformerLM, tokens: Tensor) -> tuple[float, float]:
    """(largest |x| of the streams, relative error of what running them back gives), products in bfloat16."""
    sequence, context = model.sequence, PassContext(model.rotary())
    read = sequence.streams.read
    with torch.autocast("cpu", torch.bfloat16):
        streams = begin(sequence.streams, model.embed(tokens[None]), model.embedding_weight())
        first = streams[0].clone()
        saved = sequence.run(streams, context)
        largest = max(float(read(s).abs().max()) for s in streams)
        zeros = [torch.zeros_like(s, dtype=sequence.streams.dtype) for s in streams]
        sequence.run_back(streams, zeros, context, saved)
    error = (read(streams[0]) - read(first)).norm() / read(first).norm()
    return largest, float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    keep_freed_memory()
    dataset = open_dataset(DataConfig(corpus=("python-reference",), context=CONTEXT), print)
    text = torch.from_numpy(dataset.tokens.validation[: 64 * CONTEXT].astype("int64"))
    rows: list[tuple[str, str, str, float, str]] = []
    trained: Any = None
    for seed in range(arguments.seeds):
        config = ReformerConfig(vocab_size=dataset.tokenizer.vocab_size, seed=seed, **SIZES)  # type: ignore[arg-type]
        batches = Batches(dataset.tokens, dataset.tokenizer.end, CONTEXT, BATCH, seed)
        for name, kind in (("fixed point", ReformerLM), ("float32", FloatLM)):
            model, seconds = train(kind, config, batches, arguments.steps)
            nats, (largest, error) = held_out(model, text), rebuilt(model, text[:4096])
            print(
                f"seed {seed}  {name:12} {1000 * seconds:6.1f} ms a step, held out {nats:.4f} nats/token, "
                f"largest |x| {largest:.1f}, rebuilt to {error:.1e}"
            )
            case = f"{name}, {arguments.steps} steps, seed {seed}"
            rows += [("reformer", case, "step", seconds, "s"), ("reformer", case, "held out", nats, "nats/token")]
            rows.append(("reformer", case, "rebuilt", error, "relative error"))
            trained = trained or model
    weights = trained.state_dict()
    for bits in (10, 12, 14, 16, 18, 20, 22, 24, 26):
        model = ReformerLM(dataclasses.replace(trained.config, stream_bits=bits))
        model.load_state_dict(weights)
        try:
            nats = held_out(model.eval(), text)
        except NumericalError as error:
            print(f"unit 2^-{bits}: {error}")
            continue
        print(f"unit 2^-{bits}: held out {nats:.6f} nats/token, range +-{2.0 ** (30 - bits):g}")
        rows.append(("reformer", f"unit 2^-{bits}", "held out", nats, "nats/token"))
    record.append("cpu", "streams", rows)


if __name__ == "__main__":
    main()
