"""Decoding with the published novel model: time of a token after a context, bytes kept, prefill. Us and the peer.

    python benchmarks/decode.py --contexts 1024 16384 65536 524288 [--batches 1 16] [--systems reformer transformers]

Ours after all contexts are timed in turn in one process, the peer's in one each. transformers' Reformer gets a fixed
hash_seed (without it, it compares buckets of different rotations). Its prompt is read in one call, the only way that
it has, ours in slices. A batch is made of equal rows: it is the memory they use that counts. Prints ratios; appends to
results.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import record
import torch
from reformer import DecodingState, ReformerLM
from systems import factors, huggingface, ours, tokens
from torch import Tensor
from train_step import MIB, peak

from reformer_cli.utils.devices import keep_freed_memory

SLICE = 4096  # prompt tokens read at a time, as `reformer generate` does
BLOCK, LEAST = 50, 4  # tokens timed before another context has its turn; tokens timed at least
Step = Callable[[Tensor], Tensor]
Found = dict[str, float]


def reformer(contexts: list[int], batch: int, device: str) -> list[tuple[Step, Callable[[], int], Found]]:
    """After each context, of one model and one text: what takes one more token a row, what is kept, how it was read."""
    keep_freed_memory()
    model = ours(max(contexts), device)[0].eval()
    prompt, state, at = tokens(max(contexts), device), None, 0
    before, began, found = peak(device), time.perf_counter(), []
    for context in contexts:
        with torch.inference_mode():
            for part in prompt[:, at:context].split(SLICE, 1):
                _, state = model.extend(part, state, last_only=True)
        at = context
        assert state is not None
        took = {"prefill": time.perf_counter() - began, "added": peak(device) - before}
        found.append((*_ours_at(model, state.select(torch.zeros(batch, dtype=torch.int64))), took))
    return found


def _ours_at(model: ReformerLM, state: DecodingState) -> tuple[Step, Callable[[], int]]:
    return lambda token: model.extend(token, state)[0][:, -1], lambda: state.nbytes


def transformers(contexts: list[int], batch: int, device: str) -> list[tuple[Step, Callable[[], int], Found]]:
    """The same of transformers, of one context; its cache holds hidden states and buckets of everything read."""
    (context,) = contexts
    model = huggingface(2 * context, device)[0].eval()
    for layer in model.reformer.encoder.layers:  # copied out of the config when the model was made
        attention = layer.attention.self_attention
        if hasattr(attention, "hash_seed"):
            attention.hash_seed = 0
            # For the context that is read, not for the positions that leave room for what follows.
            attention.num_buckets = list(factors(context))
    prompt = tokens(context, device)[:, :context]
    before, began = peak(device), time.perf_counter()
    with torch.inference_mode():
        cache = model(input_ids=prompt, use_cache=True).past_buckets_states
        found = {"prefill": time.perf_counter() - began, "added": peak(device) - before}
        for held in (cache.states_cache, cache.buckets_cache):
            held[:] = [x.expand(batch, *x.shape[1:]).contiguous() if x.numel() else x for x in held]

    def step(token: Tensor) -> Tensor:
        nonlocal cache
        out = model(input_ids=token, past_buckets_states=cache, use_cache=True)
        cache = out.past_buckets_states
        logits: Tensor = out.logits[:, -1]
        return logits

    return [(step, lambda: sum(x.nbytes for x in (*cache.states_cache, *cache.buckets_cache)), found)]


SYSTEMS = {"reformer": reformer, "transformers": transformers}


def measure(system: str, contexts: list[int], batch: int, device: str, budget: float) -> list[Found]:
    """Median seconds of one more token a row, greedy, after each context; contexts have their turns block by block."""
    torch.manual_seed(0)
    cases = SYSTEMS[system](contexts, batch, device)
    newest = [torch.full((batch, 1), 7, device=device) for _ in cases]
    times: list[list[float]] = [[] for _ in cases]
    began = time.perf_counter()
    with torch.inference_mode():
        while len(times[0]) < LEAST or time.perf_counter() - began < budget * len(cases):
            for n, (step, _, _) in enumerate(cases):
                for _ in range(BLOCK if len(times[n]) >= LEAST else LEAST):
                    start = time.perf_counter()
                    newest[n] = step(newest[n]).argmax(-1, keepdim=True)
                    times[n].append(time.perf_counter() - start)
                    if time.perf_counter() - began > 2 * budget * len(cases) and len(times[n]) >= LEAST:
                        break
    return [
        took | {"seconds": statistics.median(t[1:]), "state": kept(), "peak": peak(device)}
        for t, (_, kept, took) in zip(times, cases, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 16384, 65536, 524288])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=5.0, help="to spend on each measurement, roughly")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a measurement is given up")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        (system, *_), (batch, *_) = arguments.systems, arguments.batches
        print(json.dumps(measure(system, arguments.contexts, batch, arguments.device, arguments.seconds)))
        return
    rows: list[tuple[str, str, str, float, str]] = []
    print(
        f"{'context':>8} {'batch':>5}  {'system':<13} {'ms/token':>9} {'state MiB':>9} {'prefill/s':>9} {'peak MiB':>9}"
    )
    contexts = sorted(arguments.contexts)
    for batch in arguments.batches:
        first: dict[int, float] = {}
        for system in arguments.systems:
            for group in [contexts] if system == "reformer" else [[n] for n in contexts]:
                found = _in_a_process(system, group, batch, arguments)
                for context, one in zip(group, found or [None] * len(group), strict=True):
                    line = f"{context:8,} {batch:5}  {system:<13}"
                    if one is None:
                        print(f"{line} not finished: too long, or out of memory", flush=True)
                        continue
                    measured = _measured(one, context)
                    rows += [(system, f"{context} tokens, batch {batch}", name, *x) for name, x in measured.items()]
                    ms, state, prefill, most = (x for x, _ in measured.values())
                    ratio = f"{ms / first.setdefault(context, ms):,.1f} x"
                    print(f"{line} {ms:9.3f} {state:9.1f} {prefill:9,.0f} {most:9,.0f}  {ratio}", flush=True)
    record.append(arguments.device, "decode", rows)


def _measured(found: Found, context: int) -> dict[str, tuple[float, str]]:
    return {
        "time of a token": (found["seconds"] * 1e3, "ms"), "state": (found["state"] / MIB, "MiB"),
        "prefill": (context / found["prefill"], "tokens/s"), "peak memory": (found["peak"] / MIB, "MiB"),
    }  # fmt: skip


def _in_a_process(system: str, contexts: list[int], batch: int, arguments: argparse.Namespace) -> list[Found] | None:
    line = [sys.executable, __file__, "--one", "--systems", system, "--contexts", *map(str, contexts)]
    line += ["--batches", str(batch), "--device", arguments.device, "--seconds", str(arguments.seconds)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1], file=sys.stderr)
        return None
    found: list[Found] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
