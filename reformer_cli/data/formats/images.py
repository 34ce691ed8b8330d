"""Images, by Pillow: from a file to RGB bytes of one size, and what is said of those that are not read or changed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reformer_cli.data.formats.base import Document
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.extras import missing_package

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow knows dozens, some of them able to start other programs
Pixels = npt.NDArray[np.uint8]  # [height, width, 3]


def read_image(file: OpenFile) -> Iterator[Document]:
    """One document: its bytes in raster order, each as the character of that number."""
    size = file.options.image_size
    assert size is not None
    found, notes = pixels(file.stream, file.name, size)
    if notes:
        file.replaced.note(1, f"{file.name} {', '.join(notes)}")
    yield Document(file.name, [found.tobytes().decode("latin-1")])


def pixels(stream: BinaryIO, name: str, size: tuple[int, int]) -> tuple[Pixels, list[str]]:
    """RGB of an image resized, and cropped at the middle, to (height, width); and how it was converted besides.

    Raises UnreadableText for what is no image, damaged, animated, or larger than Pillow's MAX_IMAGE_PIXELS.
    """
    found, notes = opened(stream, name)
    height, width = size
    if found.width < width or found.height < height:
        notes.append(f"has {found.width} x {found.height} pixels, enlarged to {width} x {height}")
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(found, (width, height), Image.Resampling.LANCZOS)), notes


def top(stream: BinaryIO, name: str, size: tuple[int, int]) -> tuple[Pixels, list[str]]:
    """RGB of the upper part of an image, scaled to the width of (height, width): [rows < height, width, 3].

    Raises UnreadableText as `pixels` does, and for an image that has all the rows already.
    """
    found, notes = opened(stream, name)
    height, width = size
    rows = round(found.height * width / found.width)
    if not 0 < rows < height:
        what = f"{name} has {rows} rows where it is {width} pixels wide, and a whole image {height}"
        raise UnreadableText(what, f"say how many are kept, such as --keep-rows {height // 2}")
    from PIL import Image

    return np.asarray(found.resize((width, rows), Image.Resampling.LANCZOS)), notes


def opened(stream: BinaryIO, name: str) -> tuple[Image, list[str]]:
    """The image as RGB, turned as its camera was held, and what of it was converted. Raises UnreadableText."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise missing_package("pillow", name, "images") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(stream, formats=FORMATS)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UnreadableText(f"{name} is animated: {frames} images", "save one of them by itself")
            deep = "16" in image.mode or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image), deep)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableText(f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels", "make it smaller") from None
    except UnidentifiedImageError:
        raise UnreadableText(f"{name} is no image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # of damaged files the library raises anything
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableText(f"{name} is not a whole image ({what})", "download or save it again") from None


def _as_rgb(image: Image, deep: bool) -> tuple[Image, list[str]]:
    from PIL import Image

    notes = ["has 16 bits a channel, of which 8 are kept"] if deep else []
    if image.mode.startswith("I"):  # Pillow's own conversion would make everything above 255 white
        grey = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1)
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            notes.append("is transparent, laid on white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in ("1", "L"):
        notes.append("is grey, its three channels alike")
    elif image.mode == "CMYK":
        notes.append("is CMYK, made RGB without a colour profile")
    return image.convert("RGB"), notes


def as_bytes(values: Any, path: Path) -> bytes:
    """The file that an array [height, width, 3] of bytes makes, in the format of the path's ending."""
    from PIL import Image

    found = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(np.asarray(values, np.uint8)).save(found, format=kind)
    return found.getvalue()
