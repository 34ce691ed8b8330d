"""Held-out bits/byte after the same minutes on the same machine: `reformer train` with no settings, and the peers.

    python benchmarks/equal_minutes.py TEXT --minutes 5 [--seeds 0 1 2] [--systems reformer dense ...] [--vocab 1024]
                                       [--our-tokenizer] [--samples FOLDER] [--keep FOLDER]

The last twentieth of the text, without Project Gutenberg's licence, is held out; every byte of it is scored once. Ours
is the command line, tokenizer and all. Peers: AdamW, 1,024 or 2,048 tokens a step, a step size that falls to 0 over the
minutes, each token scored with at least half a context before it; sizes and step sizes are the best of those tried
(docs/results.md). Appends to results.csv; samples:
what each writes after the same prompt, of the first seed; keep: our runs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import record
import torch
import torch.nn.functional as F
from dense import Dense, Recurrent
from torch import Tensor, nn

from reformer_cli.data.gutenberg import cut_licence
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.utils.devices import keep_freed_memory

HELD_OUT, WARM_UP = 20, 0.05  # one part in so many; share of the minutes
PROMPT, SAMPLE, TEMPERATURE = "Raskolnikov", 2000, 0.8  # characters of a sample
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """How a peer is trained. make: vocab_size, context -> (module, what gives logits of tokens [batch, context])."""

    make: Callable[[int, int], tuple[nn.Module, Logits]]
    context: int
    batch: int
    learning_rate: float
    bf16: bool = True  # where this machine is faster at it, as ours
    muon: bool = False  # for matrices of layers, AdamW for the rest; as ours
    weight_decay: float = 0.1  # of matrices
    decay: float = 1.0  # share of the minutes, at their end, in which the step size falls; ours: 0.2


def dense(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """A modern dense Transformer of ours' size, with as much dropout."""
    model = Dense(vocab_size, 192, 4, 4, dropout=0.2)
    return model, model


def dense_few(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """The same for a text that is read two or three times."""
    model = Dense(vocab_size, 192, 4, 4, dropout=0.1)
    return model, model


def dense_small(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """As ours where so few tokens can be read: 128 wide, 3 layers."""
    model = Dense(vocab_size, 128, 3, 4, dropout=0.1)
    return model, model


def lstm(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """Two layers of 320; regularised, since the text is short."""
    model = Recurrent(vocab_size, 320, 2, dropout=0.3)
    return model, model


def lstm_few(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """Narrower, for a text that is read some times only."""
    model = Recurrent(vocab_size, 256, 2, dropout=0.1)
    return model, model


def huggingface(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """transformers' Reformer, local and LSH layers in turn, the sizes of ours."""
    from transformers import ReformerConfig, ReformerModelWithLMHead

    rows = 2 ** (context.bit_length() // 2)
    config = ReformerConfig(
        vocab_size=vocab_size, hidden_size=192, num_attention_heads=4, attention_head_size=48, feed_forward_size=768,
        attn_layers=["local", "lsh", "local", "lsh"], num_hashes=1, num_buckets=2 * context // 64, is_decoder=True,
        axial_pos_shape=(rows, context // rows), axial_pos_embds_dim=(64, 128), max_position_embeddings=context,
        hidden_dropout_prob=0.0, local_attention_probs_dropout_prob=0.0, use_cache=False,
    )  # fmt: skip
    model = ReformerModelWithLMHead(config)
    return model, lambda tokens: model(input_ids=tokens).logits


def lucidrains(vocab_size: int, context: int) -> tuple[nn.Module, Logits]:
    """reformer-pytorch, one of four heads by hash, the sizes of ours."""
    from reformer_pytorch import ReformerLM

    model = ReformerLM(
        num_tokens=vocab_size, dim=192, depth=4, max_seq_len=context, heads=4, bucket_size=64, n_hashes=1, causal=True,
        n_local_attn_heads=3, axial_position_emb=True, axial_position_shape=(context // 64, 64),
    )  # fmt: skip
    return model, model


PEERS = {
    "dense": Peer(dense, 256, 8, 3e-3, weight_decay=0.5, decay=0.2),
    "dense-few": Peer(dense_few, 256, 8, 3e-3, decay=0.2),
    "dense-small": Peer(dense_small, 256, 8, 4e-3, decay=0.2),
    "dense-muon": Peer(dense, 256, 8, 5e-3, muon=True, decay=0.2),
    "lstm": Peer(lstm, 128, 8, 8e-3, decay=0.2),
    "lstm-few": Peer(lstm_few, 128, 8, 1e-2, decay=0.2),
    "transformers": Peer(huggingface, 1024, 2, 2e-3, bf16=False),  # its products lose the gradients' equality in bf16
    "reformer-pytorch": Peer(lucidrains, 1024, 2, 1e-3, bf16=False),
}


def train(peer: Peer, tokens: Tensor, vocab_size: int, minutes: float, seed: int) -> tuple[nn.Module, Logits, int]:
    """A peer after so many minutes, and the steps it took."""
    torch.manual_seed(seed)
    model, logits = peer.make(vocab_size, peer.context)
    optimisers = _optimisers(peer, model)
    draw, steps, began = torch.Generator().manual_seed(seed), 0, time.monotonic()
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        starts = torch.randint(0, len(tokens) - peer.context - 1, (peer.batch,), generator=draw)
        batch = torch.stack([tokens[s : s + peer.context + 1] for s in starts.tolist()])
        for group in (g for o in optimisers for g in o.param_groups):
            group["lr"] = peer.learning_rate * min(1, share / WARM_UP, (1 - share) / peer.decay)
        with torch.autocast("cpu", torch.bfloat16, enabled=peer.bf16):
            found = logits(batch[:, :-1])
        F.cross_entropy(found.float().flatten(0, 1), batch[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        steps += 1
    return model.eval(), logits, steps


def _optimisers(peer: Peer, model: nn.Module) -> list[torch.optim.Optimizer]:
    outer, rate = ("embedding", "head"), peer.learning_rate
    hidden = [p for n, p in model.named_parameters() if peer.muon and p.dim() == 2 and not n.startswith(outer)]
    rest = [p for p in model.parameters() if all(p is not q for q in hidden)]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": peer.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))]
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=rate, weight_decay=peer.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return found


@torch.no_grad()
def nats(logits: Logits, context: int, tokens: Tensor, bf16: bool) -> float:
    """Total nats of tokens[1:], each given at least half a context, where there is as much."""
    total, scored = 0.0, 1
    while scored < len(tokens):
        start = max(0, scored - context // 2)
        window = tokens[start : start + context + 1]
        filled = F.pad(window[:-1], (0, context - len(window) + 1))  # some peers accept one length only
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = logits(filled[None])[0, : len(window) - 1].float()
        each = F.cross_entropy(found, window[1:], reduction="none")
        total += float(each[scored - start - 1 :].double().sum())
        scored = start + len(window)
    return total


@torch.no_grad()
def written(chosen: Peer, logits: Logits, tokenizer: Tokenizer, seed: int) -> str:
    """A sample of a peer's writing: every token from what fits of the last context."""
    draw, ids = torch.Generator().manual_seed(seed), list(tokenizer.encode(PROMPT))
    while len(text := tokenizer.decode(ids)) < SAMPLE:
        seen = torch.tensor([int(tokenizer.end), *ids][-chosen.context :])
        filled = F.pad(seen, (0, chosen.context - len(seen)))
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.bf16):
            found = logits(filled[None])[0, len(seen) - 1].float()
        ids.append(int(torch.multinomial((found / TEMPERATURE).softmax(-1), 1, generator=draw)))
    return text[:SAMPLE]


def peer(
    name: str, text: Path, held: Path, minutes: float, seed: int, vocab: int, sample: Path | None, *, ours: bool
) -> dict[str, float]:
    """Train a peer on a text and score it on another."""
    keep_freed_memory()
    if vocab:
        from reformer_cli.tokenizers.train_subword import train_subwords

        tokenizer = train_subwords([text.read_text("utf-8")], vocab, case_markers=ours)
    else:
        tokenizer = ByteTokenizer()
    parts = [torch.from_numpy(tokenizer.encode(p.read_text("utf-8"))).long() for p in (text, held)]
    chosen = PEERS[name]
    chosen = replace(chosen, bf16=chosen.bf16 and pick_precision("cpu")[0] == "bfloat16")
    model, logits, steps = train(chosen, parts[0], tokenizer.vocab_size, minutes, seed)
    scored = torch.cat([torch.tensor([tokenizer.end]), parts[1]])
    found = nats(logits, chosen.context, scored, chosen.bf16)
    if sample:
        sample.write_text(written(chosen, logits, tokenizer, seed) + "\n", "utf-8")
    size = sum(p.numel() for p in model.parameters())
    return {"bits": found / math.log(2) / held.stat().st_size, "steps": steps, "parameters": size}


def ours(
    text: Path, held: Path, minutes: float, seed: int, settings: list[str], sample: Path | None, keep: Path | None
) -> dict[str, float]:
    """`reformer train`, then `reformer evaluate perplexity`."""
    line = [sys.executable, "-m", "reformer_cli"]
    with tempfile.TemporaryDirectory() as folder:
        run = str(keep / f"minutes-{minutes:g}-seed-{seed}") if keep else f"{folder}/run"
        given = [x for setting in settings for x in ("--set", setting)]
        train_line = [*line, "train", str(text), "--validation", str(held), "--minutes", str(minutes), "--run", run]
        train_line += ["--from", "none"]
        subprocess.run([*train_line, "--seed", str(seed), *given], check=True, stderr=subprocess.DEVNULL)
        scored = [*line, "evaluate", "perplexity", "--run", run, str(held), "--json"]
        found = json.loads(subprocess.run(scored, check=True, capture_output=True, text=True).stdout)
        if sample:
            asked = ["--prompt", PROMPT, "--max-tokens", str(SAMPLE), "--temperature", str(TEMPERATURE)]
            asked = [*line, "generate", "--run", run, *asked, "--seed", str(seed)]
            made = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
            sample.write_text(made[:SAMPLE] + "\n", "utf-8")
        lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
        steps = max(json.loads(x).get("step", 0) for x in lines)
    return {"bits": found["bits_per_byte"], "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", choices=["reformer", *PEERS], default=["reformer", *PEERS])
    parser.add_argument("--vocab", type=int, default=1024, help="of the peers' BPE; 0: bytes")
    parser.add_argument("--our-tokenizer", action="store_true", help="of the peers too, folded and all; else a BPE")
    parser.add_argument("--set", action="append", default=[], help="a setting of ours, as `reformer train --set`")
    parser.add_argument("--samples", type=Path, help="a folder for what each writes")
    parser.add_argument("--keep", type=Path, help="a folder for our runs")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        text, held = map(Path, arguments.one)
        system, seed = arguments.systems[0], arguments.seeds[0]
        given = (arguments.minutes, seed, arguments.vocab, arguments.samples)
        print(json.dumps(peer(system, text, held, *given, ours=arguments.our_tokenizer)))
        return
    if arguments.samples:
        arguments.samples.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text, held = Path(folder) / "text.txt", Path(folder) / "held.txt"
        data = "".join(cut_licence([arguments.text.read_text("utf-8")]))
        cut = len(data) - len(data) // HELD_OUT
        text.write_text(data[:cut], "utf-8")
        held.write_text(data[cut:], "utf-8")
        for system in arguments.systems:
            bits = []
            case = f"{arguments.text.stem}, {arguments.minutes:g} minutes"
            peers = f", vocab {arguments.vocab}" + (", our tokenizer" if arguments.our_tokenizer else "")
            case += "".join(f", {s}" for s in arguments.set) if system == "reformer" else peers
            for seed in arguments.seeds:
                first = arguments.samples is not None and seed == arguments.seeds[0]
                sample = (arguments.samples / f"{system}-{arguments.minutes:g}.txt").resolve() if first else None
                if system == "reformer":
                    found = ours(text, held, arguments.minutes, seed, arguments.set, sample, arguments.keep)
                else:
                    found = _in_a_process(system, seed, text, held, arguments, sample)
                print(f"{system:<17} seed {seed}: {json.dumps(found)}", flush=True)
                bits.append(found["bits"])
                seeded = f"{case}, seed {seed}"
                held_out = (system, seeded, "held out", found["bits"], "bits/byte")
                record.append("cpu", "equal_minutes", [held_out, (system, seeded, "trained", found["steps"], "steps")])
            print(f"{system:<17} {statistics.mean(bits):.4f} bits/byte, mean of {len(bits)}", flush=True)


def _in_a_process(
    system: str, seed: int, text: Path, held: Path, arguments: argparse.Namespace, sample: Path | None
) -> dict[str, float]:
    line = [sys.executable, __file__, str(text), "--one", str(text), str(held), "--systems", system, "--seeds"]
    line += [str(seed), "--minutes", str(arguments.minutes), "--vocab", str(arguments.vocab)]
    line += ["--samples", str(sample)] if sample else []
    line += ["--our-tokenizer"] if arguments.our_tokenizer else []
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
