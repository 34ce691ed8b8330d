"""The runs that can be written with, by name: those under runs/, that of --run, and the starter; loaded on demand."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from reformer import DecodingState, ReformerLM

from reformer_cli.report.records import read_records
from reformer_cli.runs.run import CONFIG, LOCK, METRICS, RUNS, WEIGHTS, Run, is_locked
from reformer_cli.runs.starter import NAME, starter
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.word_rules import WordRule
from reformer_cli.serve.prefixes import Prefixes
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.errors import UserError

MOST_LOADED = 3  # models in memory at once
RulesOf = Callable[[Run, SamplingConfig], Sequence[WordRule]]


@dataclass
class Loaded:
    """A model in memory. prefixes: states of texts that it has read; rules: of a run and settings, those for words."""

    name: str
    run: Run
    tokenizer: Tokenizer
    model: ReformerLM
    rules: RulesOf
    prefixes: Prefixes = field(init=False)
    warm: DecodingState = field(init=False)

    def __post_init__(self) -> None:
        self.prefixes = Prefixes(self.model)
        end = torch.tensor([[self.tokenizer.end]], device=self.model.embedding.device)
        self.warm = self.model.extend(end)[1]  # as long as it lives, so does the program that new states share

    @cached_property
    def pieces(self) -> list[str]:
        """What each token spells, with U+FFFD for what is no whole character."""
        return [piece.decode("utf-8", "replace") for piece in self.tokenizer.stream().pieces]


class UnknownRun(UserError):
    """A name that no run has."""


class Library:
    """first: the run that is written with where none is named; its name is its folder's."""

    def __init__(self, first: Run, device: str = "cpu", rules: RulesOf = lambda run, config: []) -> None:
        own = starter()
        self.first = NAME if own is not None and first.path.resolve() == own.resolve() else first.path.resolve().name
        self.device, self._given, self._rules = device, first, rules
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def folders(self) -> dict[str, Path]:
        """Name -> folder. What a request names is only ever looked up here: it is never part of a path."""
        found = {path.parent.name: path.parent for path in sorted(RUNS.glob(f"*/{CONFIG}"))}
        if (own := starter()) is not None:
            found.setdefault(NAME, own)
        return found | {self.first: self._given.path}

    def run(self, name: str) -> Run:
        """Raises UnknownRun, and UserError for one that is damaged, or of images."""
        folder = self.folders().get(name or self.first)
        if folder is None:
            raise UnknownRun(f"there is no run {name!r}", "GET /v1/models lists those there are")
        run = self._given if folder == self._given.path else Run.open(folder)
        if run.config.data.image_size is not None:
            raise UserError(f"{name} was trained on images", "this program writes texts")
        return run

    def get(self, name: str) -> Loaded:
        """Load a model, or take it from memory; the one that was not used longest goes. For the engine's thread."""
        name = name or self.first
        if name not in self._loaded:
            run = self.run(name)
            self._loaded[name] = Loaded(name, run, run.tokenizer(), run.load_model(self.device), self._rules)
        self._loaded.move_to_end(name)
        while len(self._loaded) > MOST_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[name]

    def get_ready(self) -> bool:
        """A little of what the next text of the newest model will need; whether there is more to do."""
        return bool(self._loaded) and next(reversed(self._loaded.values())).prefixes.get_ready()

    def about(self) -> list[dict[str, Any]]:
        """What the page shows of each run."""
        found = []
        for name, folder in self.folders().items():
            try:
                run = self.run(name)
            except UserError:  # damaged, or of images
                continue
            records, weights = read_records(folder / METRICS), folder / WEIGHTS
            scores = records.of("val_bits_per_byte").y or records.of("bits_per_byte").y
            found.append({
                "name": name, "text": ", ".join(Path(c).name for c in run.config.data.corpus),
                "steps": records.steps, "bits_per_byte": round(min(scores), 4) if scores else None,
                "age_seconds": round(time.time() - weights.stat().st_mtime) if weights.is_file() else None,
                "loaded": name in self._loaded, "training": is_locked(folder / LOCK),
            })  # fmt: skip
        return found
