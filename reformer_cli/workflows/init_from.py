"""A new run from another's weights: its sizes, under settings that may differ where tensors keep their shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reformer import ReformerConfig, ReformerLM
from torch import Tensor

from reformer_cli.config.checks import Unchosen
from reformer_cli.config.schema import DataConfig, Settings
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import Run
from reformer_cli.training.auto_config import AutoSetting
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import ConfigError, UserError

GENTLER = 0.25  # step size, as a share of that of a new model: what was learnt is to be kept


class Start:
    """The run that another begins with. Raises UserError where there is none, or nothing to begin with."""

    def __init__(self, path: Path) -> None:
        self.path, self.run = path, Run.open(path)
        self.config = self.run.config.model
        self.tokenizer = self.run.tokenizer()
        self.model = self.run.load_model()
        self.untrained: float | None = None  # bits/byte with which it predicts the text, where that was looked at

    def settings(self, load: Callable[[Settings], Settings]) -> Settings:
        """The run's own settings under those a user gives, which `load` lays over them. Raises UserError for what
        cannot go with the run's tokenizer or weights."""
        base: Settings = {"model": dataclasses.asdict(self.config), "data": {"context": Unchosen(2)}, "train": {}}
        del base["model"]["vocab_size"]
        del base["model"]["chunk_tokens"]  # which suited the machine that it was made on
        del base["model"]["dropout"]  # which suited its text
        base["model"]["line_positions"] = self.config.line_positions or 0  # for a model that is there nobody chooses
        read = self.run.config.data  # the new text is read as the old one was
        base["data"] |= (as_read := {name: getattr(read, name) for name in ("unwrap", "ruby", "duplicates")})
        found = load(base)
        for name, value in as_read.items():
            if value == found["data"][name] != getattr(DataConfig(), name):
                say(f"data.{name} is {value}, as {self.path} read its text")
        if named := [f"data.{name}" for name in ("tokenizer", "vocab_size") if name in found["data"]]:
            raise UserError(
                f"--from {self.path} brings its tokenizer ({self.tokenizer.kind}, {self.tokenizer.vocab_size:,} ids)",
                f"leave out {' and '.join(named)}",
            )
        self.fitted(self._model(found))
        if isinstance(found["data"]["context"], Unchosen):
            del found["data"]["context"]
        return found

    def _model(self, settings: Settings) -> ReformerConfig:
        return ReformerConfig(**settings["model"], vocab_size=self.tokenizer.vocab_size)

    def suited(self, choices: Sequence[AutoSetting], settings: Settings) -> list[AutoSetting]:
        """The plan's choices for a new model, as they suit one that is there."""
        found, limit = [], self._model(settings).max_length
        shorter = 1
        for c in choices:
            if c.key in ("train.weight_decay", "train.optimizer"):
                continue  # as fast as for a new model, decay would take away what was learnt
            if c.key == "train.learning_rate":
                reason = f"a quarter of a new model's, to keep what {self.path} has learnt"
                c = dataclasses.replace(c, value=c.value * GENTLER, reason=reason)
            elif c.key == "data.context" and limit is not None and c.value > limit:
                shorter = c.value // limit
                c = dataclasses.replace(c, value=limit, reason="all that the model's positions can number")
            elif c.key == "train.batch_size":
                c = dataclasses.replace(c, value=c.value * shorter)
            found.append(c)
        return found

    def begin(self, run: Run) -> None:
        """Make the weights of a new run, and say in it where they are from."""
        run.save_weights(self.fitted(run.config.model))
        Origin("run", str(self.path)).write(run.path)

    def fitted(self, config: ReformerConfig) -> dict[str, Tensor]:
        """The weights for a model of this config. Raises ConfigError that lists every tensor which does not fit, with
        both shapes."""
        old = _tensors(self.model)
        wanted = _tensors(ReformerLM(config, head_bias="head.bias" in old))
        redrawn = config.chunked and config.seed != self.config.seed  # its rotations are its seed's
        found: dict[str, Tensor] = {}
        faults = []
        for name, fresh in wanted.items():
            taken = _taken(name, old.get(name), fresh, redrawn)
            if taken is not None:
                found[name] = taken
                continue
            there = f"is {list(old[name].shape)} in {self.path}" if name in old else f"is not in {self.path}"
            hint = " (only the first axis of positions can grow)" if name.startswith("axial.tables") else ""
            faults.append(f"{name} {there}, {list(fresh.shape)} with these settings{hint}")
        faults += [
            f"{name} is {list(t.shape)} in {self.path}, and has no place with these settings"
            for name, t in old.items()
            if name not in wanted and not (name.startswith("axial.") and config.positions != "axial")
        ]
        if faults:
            raise ConfigError(f"the weights of {self.path} do not fit these settings", faults)
        return found


def _tensors(model: ReformerLM) -> Mapping[str, Tensor]:
    """Weights and rotations by name."""
    return {name: t.detach() for name, t in model.state_dict().items()}


def _taken(name: str, old: Tensor | None, fresh: Tensor, redrawn: bool) -> Tensor | None:
    """What a new model's tensor becomes; None where it cannot be had. fresh: that of a model never trained."""
    last = name.rsplit(".", 1)[-1]
    if last == "rotations":  # drawn, not trained: others can take their place
        return old if old is not None and old.shape == fresh.shape and not redrawn else fresh
    if last == "key_conv" and (old is None or (old.shape[1] < fresh.shape[1] and old.shape[::2] == fresh.shape[::2])):
        # Keys of more tokens begin as they were: the new tokens' shares are 0.
        found = fresh.new_zeros(fresh.shape)
        found[:, : old.shape[1] if old is not None else 1] = old if old is not None else 1.0
        return found
    if old is None:  # what changes nothing before it is trained
        return fresh if name.startswith("line_positions.") else None
    if old.shape == fresh.shape:
        return old
    if name == "axial.tables.0" and old.shape[1:] == fresh.shape[1:] and len(fresh) > len(old):
        # Rows that were never trained begin as the old ones over again: vectors of a kind that the layers know.
        return old.repeat(-(-len(fresh) // len(old)), 1)[: len(fresh)].clone()
    return None
