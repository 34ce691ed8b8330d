"""Images by an image model: the values after those given, and a sheet of what was given beside what was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reformer_cli.data.formats.images import Pixels
from reformer_cli.sampling.sampler import Sampler

BYTES = 256  # values that can be drawn; the token beside them begins an image and is never in one
TILE, GAP, LABEL = 96, 6, 14  # least width of an image on a sheet, space between two, height of a label
PAPER, MISSING = 255, (128, 160)  # of a sheet: its colour, and the two greys of what was not given


def complete(texts: Sampler, values: int) -> Iterator[list[int]]:
    """So many more values of images whose beginning `texts` has read: one of each sample at a time, in raster order."""
    for _ in range(values):
        yield texts.take(texts.logits()[:, :BYTES]).tokens


def unfinished(given: Sequence[int], made: Sequence[int], size: tuple[int, int]) -> Pixels:
    """An image of (height, width) of which only these values are known; the pixels after them in two greys."""
    height, width = size
    rows, columns = np.indices(size)
    values = np.repeat(np.where((rows // 2 + columns // 2) % 2, *MISSING).astype(np.uint8)[..., None], 3, 2).reshape(-1)
    known = [*given, *made]
    known = known[: len(known) // 3 * 3]
    values[: len(known)] = known
    return values.reshape(height, width, 3)


def sheet(rows: Sequence[Sequence[tuple[str, Pixels]]]) -> Pixels:
    """Rows of images of one size, enlarged if they are small, under the labels of the first row."""
    from PIL import Image, ImageDraw

    height, width = rows[0][0][1].shape[:2]
    scale = max(1, -(-TILE // width))
    across, down = width * scale + GAP, height * scale + GAP
    page = Image.new("RGB", (GAP + across * max(map(len, rows)), LABEL + GAP + down * len(rows)), (PAPER,) * 3)
    for n, (label, _) in enumerate(rows[0]):
        ImageDraw.Draw(page).text((GAP + n * across, 2), label, fill=0)
    for m, row in enumerate(rows):
        for n, (_, pixels) in enumerate(row):
            tile = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            page.paste(tile, (GAP + n * across, LABEL + GAP + m * down))
    return np.asarray(page)
