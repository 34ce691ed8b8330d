"""Where a prompt may be cut: bits of what really follows, after a cut anywhere, beside those after a whole token.

    python benchmarks/prompt_edge.py NOVEL [--run starter] [--places 500]

At each of so many places of a novel that the run never saw, drawn at random, the prompt is the 300 characters before,
and what follows are those up to 150 further on. What is measured is the likelihood that the program writes just that:

anywhere: the prompt ends there, wherever that is in a word (token healing: the ways in which its end may be spelt,
each as likely as the program draws it). as typed: the same with the tokens that the prompt by itself is cut into.
whole token: the prompt ends at the next end of a token of the whole text. reached: share of places at which the tokens
of the whole text can be drawn. The penalty is how many more bits/character `anywhere` takes than `whole token`.
Appends to results.csv.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict

import record
import torch
from torch import Tensor

import reformer_cli as rc
from reformer_cli.data.text_chunks import read_text

BEFORE, AFTER = 300, 150  # characters


class Edge:
    """What a run's model says of the end of a prompt."""

    def __init__(self, model: rc.TextModel) -> None:
        self.model, self.tokenizer = model.model, model.tokenizer
        self.known: list[int] | None = None

    def logprobs(self, known: list[int], new: list[int]) -> tuple[float, Tensor]:
        """Nats of the new tokens together, as a log-probability, and log-probabilities after the last of all."""
        with torch.inference_mode():
            if self.known != known:  # read once for all ways to go on
                ids = torch.tensor([[self.tokenizer.end, *known]])
                logits, self.state = self.model.extend(ids, last_only=True)
                self.known, self.last = list(known), logits[0, -1:].float().log_softmax(-1)
            if not new:
                return 0.0, self.last[0]
            ids = torch.tensor([new])
            found = self.model.extend(ids, self.state.clone())[0][0].float().log_softmax(-1)
        before = torch.cat([self.last, found])[: len(new)]
        return float(before.gather(1, ids[0, :, None]).sum()), found[-1]

    def anywhere(self, prompt: str, following: str) -> tuple[float, bool]:
        """Log-probability that the program writes what follows, and whether by the tokens of the whole text."""
        cut, whole = self.tokenizer.prompt(prompt, first=False), self.tokenizer.encode(prompt + following).tolist()
        ways, paths, reached = [], [], False
        for way in cut.spelt:
            score, last = self.logprobs(cut.ids, way.tokens)
            ways.append(score + float(last[way.after].logsumexp(0)) if way.after else score)
            begun = [*cut.ids, *way.tokens]
            if whole[: len(begun)] == begun and (not way.after or whole[len(begun)] in way.after):
                reached = True
                paths.append(self.logprobs(cut.ids, whole[len(cut.ids) :])[0])
            elif not way.after:
                paths.append(self.logprobs(cut.ids, [*way.tokens, *self.tokenizer.encode(following).tolist()])[0])
        if not ways:
            return self.typed(prompt, following), True
        return float(torch.tensor(paths).logsumexp(0) - torch.tensor(ways).logsumexp(0)), reached

    def typed(self, prompt: str, following: str) -> float:
        """The same of the tokens of each part by itself."""
        return self.logprobs(
            self.tokenizer.prompt(prompt, first=False).whole, self.tokenizer.encode(following).tolist()
        )[0]

    def next_end(self, prompt: str, following: str) -> tuple[int, float]:
        """Characters up to the next end of a token, and the log-probability of what follows it."""
        whole, stream = self.tokenizer.encode(prompt + following).tolist(), self.tokenizer.stream()
        done = 0
        for n, token in enumerate(whole):
            if done >= len(prompt):
                return done - len(prompt), self.logprobs(whole[:n], whole[n:])[0]
            done += len(stream.push(token))
        return len(following), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("novel")
    parser.add_argument("--run", default="starter")
    parser.add_argument("--places", type=int, default=500)
    a = parser.parse_args()
    text, edge, draw = read_text(a.novel), Edge(rc.load(a.run)), random.Random(0)
    bits, characters, reached, lost = defaultdict[str, float](float), defaultdict[str, int](int), 0, []
    for _ in range(a.places):
        at = draw.randrange(20_000, len(text) - 20_000)
        prompt, following = text[at - BEFORE : at], text[at : at + AFTER]
        found, by_tokens = edge.anywhere(prompt, following)
        skipped, whole = edge.next_end(prompt, following)
        each = [("anywhere", found, AFTER), ("as typed", edge.typed(prompt, following), AFTER)]
        for name, logprob, length in [*each, ("whole token", whole, AFTER - skipped)]:
            bits[name] -= logprob / math.log(2)
            characters[name] += length
        reached += by_tokens
        if not by_tokens:
            lost.append((prompt[-12:], following[:12]))
    per = {name: bits[name] / characters[name] for name in bits}
    case, rows = f"{a.run}, {a.places} places", []
    for name in per:
        print(f"{name:12} {per[name]:.4f} bits/character  {100 * (per[name] / per['whole token'] - 1):+.2f} %")
        rows.append((name, case, "bits/character", per[name], "bits"))
        rows.append((name, case, "penalty", 100 * (per[name] / per["whole token"] - 1), "%"))
    rows.append(("anywhere", case, "reached", 100 * reached / a.places, "%"))
    print(f"reached {100 * reached / a.places:.1f} %; not at", *lost[:10], sep="\n  ")
    record.append("cpu", "prompt_edge", rows)


if __name__ == "__main__":
    main()
