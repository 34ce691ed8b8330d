"""What comes out: loops, repeats and words that exist nowhere, of each way to draw, beside what people wrote.

    python benchmarks/writing.py TEXT... --run RUN [--prompts 200] [--tokens 1000] [--ways plain greedy dry=0.8,2 ...]

Prompts are places between paragraphs of TEXT, which the run must never have seen; the text that really follows is
measured in the same way, as `people`. A way is a preset, `greedy` (temperature 0), `nucleus` (top-p 0.95 alone at
temperature 1), or fields of SamplingConfig: temperature=0.7,dry_multiplier=0.8.

loops: share of texts in which a phrase of three words or more comes three times in a row, or in which four words
repeat more often than in people's texts by three standard deviations. repeated: share of 4-grams that were there
before. distinct-2: share of different pairs. unknown: share of words that stand neither in TEXT nor in --lexicon (the
texts the run was trained on). bits/byte: of the text, by the model that wrote it, before any filter: near people's is
best. Appends to results.csv.
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

import reformer_cli as rc
from reformer_cli.data.text_chunks import read_text
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.presets import PRESETS
from reformer_cli.sampling.sampler import Sampler

PROMPT, BATCH = 200, 16  # words of a prompt; texts made at a time
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
LOOP = re.compile(r"\b(\w+(?:\W+\w+){2,19})(?:\W+\1){2}\b", re.IGNORECASE)
NAMED: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, "nucleus": {"temperature": 1.0, "top_p": 0.95}}


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


def write(model: rc.TextModel, prompts: Sequence[str], tokens: int, settings: dict[str, Any]) -> Iterator[tuple]:
    """(text, nats) of one continuation of each prompt, BATCH at a time: all of them cut to the shortest's tokens."""
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
            text = "".join(map(stream.push, made[:length]))
            yield text, -sum(one.logprobs[n] for one in drawn[:length])


def people(model: rc.TextModel, pairs: Sequence[tuple[str, str]], tokens: int) -> Iterator[tuple]:
    """What really follows, as many tokens of it, and its nats."""
    tokenizer = model.tokenizer
    for prompt, after in pairs:
        before = [tokenizer.end, *tokenizer.encode(prompt).tolist()]
        ids = torch.tensor([before + tokenizer.encode(after).tolist()[:tokens]])
        with torch.no_grad():
            nats, _ = model.model.score(ids[:, :-1], ids[:, 1:])
        yield tokenizer.decode(ids[0, len(before) :].numpy()), float(nats[0, len(before) - 1 :].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--run", required=True)
    parser.add_argument("--lexicon", nargs="*", default=[], type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", default=["plain", "careful", "wild", "verse", "greedy", "nucleus"])
    parser.add_argument("--samples", type=Path, help="write the first text of each way into this folder")
    a = parser.parse_args()
    texts, model = [read_text(path) for path in a.texts], rc.load(a.run)
    files = [file for path in a.lexicon for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    known = {w.lower() for text in [*texts, *(read_text(str(f)) for f in files)] for w in WORD.findall(text)}
    pairs = places(texts, a.prompts)
    limit, rows = 1.0, []
    for name in ["people", *a.ways]:
        made = (
            people(model, pairs, a.tokens)
            if name == "people"
            else write(model, [p for p, _ in pairs], a.tokens, way(name))
        )
        found = []
        for text, nats in made:
            one = measure(text, known)
            one.nats, one.size = nats, len(text.encode())
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
            "repeated": 100 * statistics.mean(repeated),
            "distinct-2": 100 * statistics.mean(one.distinct for one in found),
            "unknown": 100 * sum(one.unknown for one in found) / max(1, words),
            "bits/byte": sum(one.nats for one in found) / max(1, size) / 0.6931471805599453,
        }
        print(f"{name:40}" + "".join(f"{label} {value:7.3f}  " for label, value in figures.items()), flush=True)
        case = f"{Path(a.run).name}, {len(found)} prompts, {a.tokens} tokens"
        rows += [(name, case, k, v, "bits/byte" if k == "bits/byte" else "%") for k, v in figures.items()]
    record.append("cpu", "writing", rows)


if __name__ == "__main__":
    main()
