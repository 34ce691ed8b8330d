"""What comes out: loops, repeats and words that exist nowhere, of each way to draw, beside what people wrote.

    python benchmarks/writing.py TEXT... --run RUN [--prompts 200] [--tokens 1000] [--ways plain greedy ...]
                                 [--judge starter]

Prompts are places between paragraphs of TEXT, which the run must never have seen; the text that really follows is
measured in the same way, as `people`. A way is a preset, `greedy` (temperature 0 alone), `nucleus` (top-p 0.95 alone at
temperature 1), or fields of SamplingConfig: temperature=0.7,dry_multiplier=0.8.

loops: share of texts in which a phrase of three words or more comes three times in a row, or in which four words
repeat more often than in people's texts by three standard deviations. repeated: share of 4-grams that were there
before. distinct-2: share of different pairs. unknown: share of words that stand neither in TEXT nor in --lexicon (the
texts the run was trained on). bits/byte: of the text after its prompt, by --judge, a model larger than the run where
there is one: near people's is best. mauve: 1 is best (Pillutla et al. 2021), of the judge's last vectors, each text's
mean, beside people's at as many other places; what people's own row has is the best to be had. It needs the extra
`peers`. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
import torch
import torch.nn.functional as F
from torch import Tensor

import reformer_cli as rc
from reformer_cli.data.text_chunks import read_text
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.presets import PRESETS
from reformer_cli.sampling.sampler import Sampler

PROMPT, BATCH = 200, 16  # words of a prompt; texts made at a time
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
LOOP = re.compile(r"\b(\w+(?:\W+\w+){2,19})(?:\W+\1){2}\b", re.IGNORECASE)
NAMED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "dry_multiplier": 0},
    "nucleus": {"temperature": 1.0, "top_p": 0.95, "dry_multiplier": 0},
}


@dataclass
class Measured:
    """Of one text; repeated and distinct are shares of its n-grams, nats its own."""

    loops: bool
    repeated: float
    distinct: float
    unknown: int
    words: int
    nats: float = 0.0
    size: int = 0


def measure(text: str, known: set[str]) -> Measured:
    """All but the likelihood."""
    words = [word.lower() for word in WORD.findall(text)]
    four, two = (list(zip(*(words[i:] for i in range(n)), strict=False)) for n in (4, 2))
    return Measured(
        loops=LOOP.search(text) is not None,
        repeated=1 - len(set(four)) / max(1, len(four)),
        distinct=len(set(two)) / max(1, len(two)),
        unknown=sum(word not in known for word in words),
        words=len(words),
    )


def places(texts: Sequence[str], count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(what comes before, what follows) at so many ends of paragraphs, drawn at random."""
    found = []
    for text in texts:
        ends = [m.end() for m in re.finditer(r"\n\s*\n", text) if 5_000 < m.end() < len(text) - 10_000]
        found += [(text, end) for end in ends]
    chosen = random.Random(seed).sample(found, min(count, len(found)))
    return [(" ".join(text[:at].split(" ")[-PROMPT:]), text[at : at + 10_000]) for text, at in chosen]


def way(name: str) -> dict[str, Any]:
    """Fields of SamplingConfig by the name of a way."""
    if name in NAMED:
        return NAMED[name]
    if name in PRESETS:
        return {"preset": name}
    return dict(part.split("=", 1) for part in name.split(","))


def write(model: rc.TextModel, prompts: Sequence[str], tokens: int, settings: dict[str, Any]) -> Iterator[str]:
    """One continuation of each prompt, BATCH at a time: all of them cut to the shortest's tokens."""
    tokenizer = model.tokenizer
    for first in range(0, len(prompts), BATCH):
        ids = [[tokenizer.end, *tokenizer.encode(p).tolist()] for p in prompts[first : first + BATCH]]
        shortest = min(map(len, ids))
        ids = [row[-shortest:] for row in ids]
        config = SamplingConfig(num_samples=len(ids), seed=first, max_tokens=tokens, **settings)
        sampler = Sampler(model.model, config, tokenizer.end, tokenizer=tokenizer)
        sampler.pending = torch.tensor(ids)
        for history, row in zip(sampler.histories, ids, strict=True):
            history.extend(row)
        drawn = [sampler.draw() for _ in range(tokens)]
        for n, row in enumerate(ids):
            stream = tokenizer.stream()
            stream.follow(row)
            made = [one.tokens[n] for one in drawn]
            length = made.index(tokenizer.end) if tokenizer.end in made else tokens
            yield "".join(map(stream.push, made[:length]))


def people(model: rc.TextModel, pairs: Sequence[tuple[str, str]], tokens: int) -> Iterator[str]:
    """What really follows, as many tokens of it."""
    tokenizer = model.tokenizer
    for _, after in pairs:
        yield tokenizer.decode(tokenizer.encode(after)[:tokens])


@torch.no_grad()
def judge(model: rc.TextModel, prompt: str, text: str) -> tuple[float, Tensor]:
    """Nats of a text after its prompt, and the mean of its tokens' last vectors [d_model]."""
    tokenizer, seen = model.tokenizer, list[Tensor]()
    before = [tokenizer.end, *tokenizer.encode(prompt).tolist()]
    ids = torch.tensor([before + tokenizer.encode(text).tolist()])
    hook = model.model.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits = model.model(ids[:, :-1])[0, len(before) - 1 :].float()
    hook.remove()
    nats = F.cross_entropy(logits, ids[0, len(before) :], reduction="sum")
    return float(nats), seen[0][0, len(before) - 1 :].float().mean(0)


def mauve(texts: Tensor, of_people: Tensor) -> float:
    """Of vectors [texts, d_model]; a tenth as many clusters as there are vectors in all, as in the paper."""
    from mauve import compute_mauve

    return float(compute_mauve(of_people.numpy(), texts.numpy(), verbose=False).mauve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--run", required=True)
    parser.add_argument("--lexicon", nargs="*", default=[], type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", default=["plain", "careful", "wild", "verse", "greedy", "nucleus"])
    parser.add_argument("--judge", default="starter", help="the run whose likelihoods and vectors are taken")
    parser.add_argument("--samples", type=Path, help="write the first text of each way into this folder")
    a = parser.parse_args()
    texts, model = [read_text(path) for path in a.texts], rc.load(a.run)
    larger = model if a.judge == a.run else rc.load(a.judge)
    files = [file for path in a.lexicon for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    known = {w.lower() for text in [*texts, *(read_text(str(f)) for f in files)] for w in WORD.findall(text)}
    pairs, others = places(texts, a.prompts), places(texts, a.prompts, seed=1)
    beside = zip(others, people(model, others, a.tokens), strict=True)
    elsewhere = torch.stack([judge(larger, prompt, text)[1] for (prompt, _), text in beside])
    limit, case = 1.0, f"{Path(a.run).name}, {len(pairs)} prompts, {a.tokens} tokens"
    for name in ["people", *a.ways]:
        prompts = [prompt for prompt, _ in pairs]
        made = people(model, pairs, a.tokens) if name == "people" else write(model, prompts, a.tokens, way(name))
        found, vectors = list[Measured](), list[Tensor]()
        for prompt, text in zip(prompts, made, strict=True):
            one = measure(text, known)
            if text:
                one.nats, vector = judge(larger, prompt, text)
                one.size = len(text.encode())
                vectors.append(vector)
            if a.samples is not None and not found:
                a.samples.mkdir(parents=True, exist_ok=True)
                (a.samples / f"{name}.txt").write_text(text, "utf-8")
            found.append(one)
        repeated = [one.repeated for one in found]
        if name == "people":
            limit = statistics.mean(repeated) + 3 * statistics.pstdev(repeated)
        words, size = sum(one.words for one in found), sum(one.size for one in found)
        figures = {
            "loops": 100 * sum(one.loops or one.repeated > limit for one in found) / len(found),
            "in a row": 100 * sum(one.loops for one in found) / len(found),
            "repeated": 100 * statistics.mean(repeated),
            "distinct-2": 100 * statistics.mean(one.distinct for one in found),
            "unknown": 100 * sum(one.unknown for one in found) / max(1, words),
            "bits/byte": sum(one.nats for one in found) / max(1, size) / 0.6931471805599453,
            "mauve": mauve(torch.stack(vectors), elsewhere),
        }
        print(f"{name:40}" + "".join(f"{label} {value:7.3f}  " for label, value in figures.items()), flush=True)
        units = {"bits/byte": "bits/byte", "mauve": "of 1"}
        record.append("cpu", "writing", [(name, case, k, v, units.get(k, "%")) for k, v in figures.items()])


if __name__ == "__main__":
    main()
