"""Images made from a seed, and a run of them against a model of frequencies.

    python benchmarks/images.py make FOLDER [--count 2000] [--side 16] [--seed 0]
    reformer train FOLDER --config tiny-images --run RUN
    python benchmarks/images.py score RUN [--sheet FILE.png]

`make` draws one figure an image (disc, diamond, frame, stripes, chessboard), left-right and top-bottom alike, in two
colours, so that an upper half says what the lower one is. `score` prints bits/dim of the images that the run held out:
by the run and by frequencies in the training images: of each byte at each place, in each colour channel, and beside
those to its left and above it; all with a count added to each byte that suits the held-out images best. --sheet: lower
halves drawn by the run, beside the given and the original ones. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import record
from reformer import ReformerLM

from reformer_cli.data.batches import ValidationWindows
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.formats.images import Pixels, as_bytes
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.runs.run import Run
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.images import complete, sheet, unfinished
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.workflows.evaluate_images import scored_images
from reformer_cli.workflows.open_model import OpenModel

LEVELS = np.arange(16, 256, 32)  # of a colour channel
ADDED = [2.0**n for n in range(-10, 5)]  # counts that are added to each byte's; the best is kept
FIGURES = 5


def image(draw: np.random.Generator, side: int) -> Pixels:
    """One figure on a ground, [side, side, 3]."""
    y, x = np.abs(np.indices((side, side)) - (side - 1) / 2)
    size = draw.uniform(0.2, 0.45) * side
    stripe = int(draw.integers(1, 4))
    inside = (
        x**2 + y**2 < size**2,
        x + y < 1.3 * size,
        (np.maximum(x, y) < size) & (np.maximum(x, y) > size - 2),
        (x + 0.5).astype(int) // stripe % 2 == 0,
        ((x + 0.5).astype(int) // 2 + (y + 0.5).astype(int) // 2) % 2 == 0,
    )[int(draw.integers(FIGURES))]
    ground, figure = draw.choice(LEVELS, 3), draw.choice(LEVELS, 3)
    return np.where(inside[..., None], figure, ground).astype(np.uint8)


def make(folder: Path, count: int, side: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        path = folder / f"{n:05}.png"
        path.write_bytes(as_bytes(image(draw, side), path))


def frequencies(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], group: int) -> float:
    """Bits/dim of test [images, values] by the counts of each byte in train, of values that are alike modulo group."""
    n = train.shape[1]
    places = np.arange(n) % group
    counts = np.zeros((group, 256))
    np.add.at(counts, (np.broadcast_to(places, train.shape), train), 1)
    found = [float(-np.log2(((counts + a) / (counts + a).sum(1, keepdims=True))[places, test]).mean()) for a in ADDED]
    return min(found)


def neighbours(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> float:
    """Bits/dim of test [images, height, width, 3] by the counts, in train, of each byte beside those of its channel to
    its left and above it."""
    counts = np.zeros((257, 257, 256), np.float32)
    np.add.at(counts, (*_around(train), train), 1)
    found = []
    for a in ADDED:
        left, above = _around(test)
        found.append(-np.log2((counts[left, above, test] + a) / (counts[left, above].sum(-1) + 256 * a)).mean())
    return float(min(found))


def _around(images: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    left, above = np.full(images.shape, 256), np.full(images.shape, 256)  # 256: outside
    left[:, :, 1:], above[:, 1:] = images[:, :, :-1], images[:, :-1]
    return left, above


def score(path: Path, page: Path | None, count: int) -> None:
    run = Run.open(path)
    tokenizer, size = run.tokenizer(), run.config.data.image_size
    assert size is not None
    tokens = open_dataset(run.config.data, print, tokenizer, run.config.corpus_digest).tokens
    stride = run.config.data.context + 1
    train = np.asarray(tokens.train, np.int64).reshape(-1, stride)[:, 1:]
    test = np.asarray(tokens.validation, np.int64).reshape(-1, stride - 1)
    model = run.load_model()
    windows = ValidationWindows(tokens, stride - 1)
    reading = ContextRule.for_images(model.config, stride - 1)
    ((_, ours),) = scored_images(OpenModel(run, tokenizer, model), [], windows, reading)
    shape = (-1, *size, 3)
    case = f"{len(test)} held-out images of {size[1]} x {size[0]}, {len(train)} to train on"
    found = [
        ("reformer", ours.score.bits_per_byte),
        ("frequency at each place", frequencies(train, test, stride - 1)),
        ("frequency in each channel", frequencies(train, test, 3)),
        ("frequency beside left and above", neighbours(train.reshape(shape), test.reshape(shape))),
        ("every byte alike", math.log2(256)),
    ]
    for system, bits in found:
        print(f"{system:<32} {bits:.3f} bits/dim")
    record.append("cpu", "images", [(system, case, "held out", bits, "bits/dim") for system, bits in found])
    if page is not None:
        page.write_bytes(as_bytes(_sheet(model, tokenizer.end, test[:: -(-len(test) // count)], size), page))


def _sheet(model: ReformerLM, end: int, images: npt.NDArray[np.int64], size: tuple[int, int]) -> Pixels:
    rows: list[Sequence[tuple[str, Pixels]]] = []
    for whole in images:
        half = whole[: len(whole) // 2].tolist()
        texts = Sampler(model, SamplingConfig(num_samples=3), end)
        texts.read([end, *half])
        drawn = np.array([*complete(texts, len(whole) - len(half))])
        row = [("given", unfinished(half, [], size))]
        row += [(f"completed {n}", unfinished(half, one.tolist(), size)) for n, one in enumerate(drawn.T, 1)]
        rows.append([*row, ("original", whole.astype(np.uint8).reshape(*size, 3))])
    return sheet(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    making, scoring = parts.add_parser("make"), parts.add_parser("score")
    making.add_argument("folder", type=Path)
    for name, default in (("count", 2000), ("side", 16), ("seed", 0)):
        making.add_argument(f"--{name}", type=int, default=default)
    scoring.add_argument("run", type=Path)
    scoring.add_argument("--sheet", type=Path)
    scoring.add_argument("--images", type=int, default=6, help="on the sheet")
    given = parser.parse_args()
    if given.part == "make":
        make(given.folder, given.count, given.side, given.seed)
    else:
        score(given.run, given.sheet, given.images)


if __name__ == "__main__":
    main()
