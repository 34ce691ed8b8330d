"""A trained model and its tokenizer, from text to text: what `import reformer_cli` offers from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from reformer_cli.config.schema import RunConfig
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, begin, generate, stream_samples
from reformer_cli.utils.errors import UserError
from reformer_cli.workflows.evaluate import PerplexityResult, evaluate_perplexity
from reformer_cli.workflows.evaluate_attention import evaluate_attention
from reformer_cli.workflows.evaluate_context import evaluate_context
from reformer_cli.workflows.evaluate_recall import evaluate_recall
from reformer_cli.workflows.export import Format, export_run
from reformer_cli.workflows.generate import check_room
from reformer_cli.workflows.open_model import OpenModel
from reformer_cli.workflows.result import Result
from reformer_cli.workflows.words import rules_of

Files = str | Path | Sequence[str | Path] | None
Bias = Sequence[tuple[str, float]]  # texts, and what is added to the logits of tokens that complete them


class TextModel(OpenModel):
    """A run, its best weights on a device, and its tokenizer."""

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.run.config

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    def generate(
        self, prompt: str = "", *, num_samples: int = 1, stop: Sequence[str] = (), logit_bias: Bias = (),
        **sampling: Any,
    ) -> str | list[Sample]:  # fmt: skip
        """A continuation of the prompt; with num_samples > 1 as many, each with its tokens, logprobs and finish_reason.

        sampling: fields of SamplingConfig (max_tokens, temperature, top_p, seed, ...); pydantic's ValidationError, a
        ValueError, for what is out of range, UserError for more tokens than the model has positions.
        """
        config = SamplingConfig(num_samples=num_samples, **sampling)
        self._check_room(prompt, config)
        rules = rules_of(self.run, config)
        sampler, samples = begin(self.model, self.tokenizer, prompt, config, stop, logit_bias, rules=rules)
        for _ in stream_samples(sampler, samples):
            pass
        for one in samples:
            one.close()
        return samples if num_samples > 1 else samples[0].text

    def stream(
        self, prompt: str = "", *, stop: Sequence[str] = (), logit_bias: Bias = (), **sampling: Any
    ) -> Iterator[str]:
        """Pieces of one continuation, each as soon as it is certain."""
        config = SamplingConfig(**sampling)
        self._check_room(prompt, config)
        rules = rules_of(self.run, config)
        return generate(self.model, self.tokenizer, prompt, stop=stop, bias=logit_bias, rules=rules, **sampling)

    def _check_room(self, prompt: str, config: SamplingConfig) -> None:
        check_room(self.model.config, 1 + len(self.tokenizer.encode(prompt)), config.max_tokens)

    @overload
    def evaluate(
        self, files: Files = None, *, context: int | None = None, by_position: bool = False
    ) -> PerplexityResult: ...

    @overload
    def evaluate(
        self, files: Files = None, *, context: int | None = None, tests: str | Sequence[str], by_position: bool = False
    ) -> Any: ...

    def evaluate(
        self, files: Files = None, *, context: int | None = None, tests: str | Sequence[str] = ("perplexity",),
        by_position: bool = False,
    ) -> Any:  # fmt: skip
        """Measure the model on files, or on what the run held out: a Result (print it, as_dict(), rows(), plot(path)),
        or of several tests a dict of them by name.

        tests: perplexity (which has bits_per_byte), context, recall, attention; the last two take one file. context, of
        perplexity: let each token see fewer than so many before it, None: all; by_position: its figures by place, too.
        """
        names = [str(name) for name in ([files] if isinstance(files, (str, Path)) else files or ())]
        one = names[0] if names else None
        run: dict[str, Callable[[], Result]] = {
            "perplexity": lambda: self._perplexity(names, context, by_position),
            "context": lambda: evaluate_context(self, names),
            "recall": lambda: evaluate_recall(self, one),
            "attention": lambda: evaluate_attention(self, one),
        }
        wanted = [tests] if isinstance(tests, str) else list(tests)
        if wrong := [test for test in wanted if test not in run]:
            raise UserError(f"the test {wrong[0]} is not known", f"use {', '.join(run)}")
        found = {test: run[test]() for test in wanted}
        return found if len(found) != 1 else found[wanted[0]]

    def _perplexity(self, files: list[str], context: int | None, by_position: bool) -> PerplexityResult:
        result, fault = evaluate_perplexity(self, files, context=context, by_position=by_position)
        if fault is not None:
            raise fault
        return result

    def export(self, folder: str | Path, format: Format = "safetensors", *, overwrite: bool = False) -> None:
        """Write the model for other programs: what `reformer export` does."""
        export_run(self.run, Path(folder), format, overwrite=overwrite)
