"""A trained model and its tokenizer, from text to text: what `import reformer_cli` offers from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, generate, new_samples, stream_samples
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.workflows.evaluate import Perplexity, perplexity
from reformer_cli.workflows.export import Format, export_run
from reformer_cli.workflows.generate import check_length
from reformer_cli.workflows.open_model import open_model, open_run

if TYPE_CHECKING:
    from reformer import ReformerLM

    from reformer_cli.config.schema import RunConfig
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer

Bias = Sequence[tuple[str, float]]  # texts, and what is added to the logits of tokens that complete them


@dataclass(frozen=True)
class TextModel:
    """A run, its best weights on a device, and its tokenizer."""

    run: Run
    tokenizer: Tokenizer
    model: ReformerLM

    @classmethod
    def open(cls, run: str | Path | None = None, device: str = "auto") -> TextModel:
        """The model of a run directory; None: of the newest under runs/. Raises UserError where there is none."""
        opened = open_run(Path(run) if run is not None else None)
        return cls(opened, *open_model(opened, device))

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.run.config

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    def generate(
        self,
        prompt: str = "",
        *,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        logit_bias: Bias = (),
        **sampling: Any,
    ) -> str | list[Sample]:
        """A continuation of the prompt; with num_samples > 1 as many, each with its tokens, logprobs and finish_reason.

        sampling: fields of SamplingConfig (max_tokens, temperature, top_p, seed, ...); pydantic's ValidationError, a
        ValueError, for what is out of range, UserError for more tokens than the model has positions.
        """
        config = SamplingConfig(num_samples=num_samples, **sampling)
        if config.num_beams > 1:
            raise ValueError("beams are searched by reformer_cli.sampling.beam_search")
        ids = [self.tokenizer.end, *self.tokenizer.prompt(prompt).tolist()]
        check_length(len(ids) + config.max_tokens, len(ids), self.model.config.max_length)
        sampler = Sampler(
            self.model, config, self.tokenizer.end, TextBias(logit_bias, self.tokenizer) if logit_bias else None
        )
        sampler.read(ids)
        samples = new_samples(self.tokenizer, stop, num_samples)
        for one in samples:
            one.stream.decoder.follow(ids)
        for _ in stream_samples(sampler, samples):
            pass
        for one in samples:
            one.close()
        return samples if num_samples > 1 else samples[0].text

    def stream(
        self, prompt: str = "", *, stop: Sequence[str] = (), logit_bias: Bias = (), **sampling: Any
    ) -> Iterator[str]:
        """Pieces of one continuation, each as soon as it is certain."""
        return generate(self.model, self.tokenizer, prompt, stop=stop, bias=logit_bias, **sampling)

    def evaluate(
        self, files: str | Path | Sequence[str | Path] | None = None, *, context: int | None = None,
        by_position: bool = False,
    ) -> Perplexity:  # fmt: skip
        """How well the model predicts files, or what the run held out: bits_per_byte, as_dict(), rows(), plot(path).

        context: let each token see fewer than so many before it; None: all.
        """
        named = [files] if isinstance(files, (str, Path)) else files or ()
        result, scored = perplexity(
            self.run, self.tokenizer, self.model, [str(name) for name in named], context=context,
            by_position=by_position,
        )  # fmt: skip
        for _ in scored:
            pass
        return result

    def export(self, folder: str | Path, format: Format = "safetensors") -> None:
        """Write the model for other programs: what `reformer export` does."""
        export_run(self.run, Path(folder), format)
