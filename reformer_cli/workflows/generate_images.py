"""`reformer generate` of a run that was trained on images: the rows below those given, and a contact sheet."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np

from reformer_cli.data.formats.images import Pixels, as_bytes, pixels, top
from reformer_cli.data.formats.registry import IMAGES
from reformer_cli.data.shards import values
from reformer_cli.runs.run import Run
from reformer_cli.sampling import images
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.images import sheet, unfinished
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free, write_file
from reformer_cli.utils.progress_bar import shown
from reformer_cli.utils.signals import interruptible
from reformer_cli.workflows.generate import reading
from reformer_cli.workflows.open_model import check_memory, decoding_note, open_model

NOT_OF_IMAGES: tuple[str, ...] = (
    "max_tokens",
    "repetition_penalty",
    "repetition_window",
    "no_repeat_ngram_size",
    "num_beams",
)
NOT_OF_IMAGES += ("presence_penalty", "frequency_penalty", "dry_multiplier", "stop_at", "max_words")


def generate_images(
    run: Run, image: Path | None, rows: int | None, output: Path | None, config: SamplingConfig, device: str,
    overwrite: bool,
) -> None:  # fmt: skip
    """Complete an image as often as config.num_samples says and write them; image: None starts with nothing."""
    size = run.config.data.image_size
    assert size is not None
    place = _place(output, config.num_samples, overwrite)
    given, original = _given(image, rows, size)
    length = run.config.data.context
    where = pick_device(device)
    check_memory(run.config.model, length, config.num_samples, where)
    opened = open_model(run, where, images=True)
    tokenizer, model = opened.tokenizer, opened.model
    if note := decoding_note(run.config.model):
        say(note)
    known = given.reshape(-1).tolist()
    made: list[list[int]] = [[] for _ in range(config.num_samples)]
    sampler = Sampler(model, config, tokenizer.end)
    with reading(len(known)) as on_read:
        sampler.read([tokenizer.end, *known], on_read)
    with interruptible([signal.SIGINT]) as interrupted, shown("drawing", length - len(known), say, values) as advance:
        try:
            for new in images.complete(sampler, length - len(known)):
                for one, value in zip(made, new, strict=True):
                    one.append(value)
                advance(1)
                if interrupted.is_set():
                    break
        finally:  # what there is is kept
            _write(place, known, made, size, original)
    if len(known) + len(made[0]) < length:
        raise KeyboardInterrupt


def check_options(config: SamplingConfig, text_options: dict[str, object]) -> None:
    """Refuse what has no meaning for images. text_options: by name, what was given of those for text."""
    plain = SamplingConfig()
    wrong = [f"--{name.replace('_', '-')}" for name in NOT_OF_IMAGES if getattr(config, name) != getattr(plain, name)]
    wrong += [name for name, value in text_options.items() if value]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} cannot be used with a run of images", "its prompt is --image and --keep-rows"
        )


def _place(output: Path | None, samples: int, overwrite: bool) -> Path:
    """Where the images go; all that can be wrong with it is told before any work."""
    if output is None:
        raise UserError("this run makes images, which need a file", "say --output FILE.png")
    if output.suffix.lower() not in IMAGES:
        raise UserError(f"--output {output} has no ending of an image", f"known endings: {' '.join(IMAGES)}")
    for path in _names(output, samples):
        check_free(path, overwrite)
    return output


def _names(output: Path, samples: int) -> list[Path]:
    """A file for each image, and the contact sheet."""
    more = [output.with_stem(f"{output.stem}-{n}") for n in range(2, samples + 1)]
    return [output, *more, output.with_stem(f"{output.stem}-sheet")]


def _given(image: Path | None, rows: int | None, size: tuple[int, int]) -> tuple[Pixels, Pixels | None]:
    """The rows to keep, [rows, width, 3], and the whole image where all of it is there."""
    height, width = size
    if image is None:
        if rows:
            raise UserError(f"--keep-rows {rows} of what?", "say --image FILE")
        return np.zeros((0, width, 3), np.uint8), None
    if rows is not None and not 0 <= rows < height:
        raise UserError(f"--keep-rows {rows} is not from 0 to {height - 1}", f"this run's images have {height} rows")
    try:
        with open(image, "rb") as file:
            found, notes = (top if rows is None else pixels)(file, str(image), size)
    except FileNotFoundError:
        raise UserError(f"no file {str(image)!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {image}: {error.strerror or error}") from None
    for note in notes:
        say(f"{image} {note}")
    return (found, None) if rows is None else (found[:rows], found)


def _write(
    output: Path, given: list[int], made: list[list[int]], size: tuple[int, int], original: Pixels | None
) -> None:
    whole = [unfinished(given, one, size) for one in made]
    row = [("given", unfinished(given, [], size)), *((f"completed {n}", one) for n, one in enumerate(whole, 1))]
    row += [("original", original)] if original is not None else []
    *names, page = _names(output, len(made))
    for path, image in [*zip(names, whole, strict=True), (page, sheet([row]))]:
        try:
            write_file(path, as_bytes(image, path))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
    several = f" to {names[-1]}" if len(names) > 1 else ""
    say(f"{output}{several}; contact sheet {page}")
