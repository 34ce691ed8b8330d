"""Images as documents: which bytes are read, what is converted, what is refused."""

from __future__ import annotations

import builtins
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.reading import silent
from PIL import Image

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.batches import Batches, ValidationWindows
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.formats.images import as_bytes, pixels, top
from reformer_cli.data.scan import reread, scanned
from reformer_cli.data.shards import TokenFiles
from reformer_cli.data.split import Share
from reformer_cli.data.text_decoding import Options
from reformer_cli.tokenizers.base import PixelTokenizer
from reformer_cli.tokenizers.load import deserialise
from reformer_cli.utils.errors import UserError

SIZE = (4, 6)  # height, width


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, image: Any, **options: Any) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def read(path: Path, size: tuple[int, int] = SIZE) -> tuple[Any, list[str]]:
    with open(path, "rb") as file:
        return pixels(file, path.name, size)


def fault(path: Path) -> str:
    with pytest.raises(UserError) as found:
        read(path)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_an_image_of_the_size_is_read_as_it_is(tmp_path: Path, ending: str) -> None:
    whole = noise(*SIZE)  # resampling one to its own size must not blur it
    found, notes = read(saved(tmp_path / f"a.{ending}", whole, lossless=True))
    assert np.array_equal(found, whole)
    assert notes == []


def test_larger_images_are_reduced_and_cropped_at_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 20:80] = (10, 200, 30)  # 40 x 60, the middle: the shape of SIZE
    found, notes = read(saved(tmp_path / "a.jpg", wide, quality=100, subsampling=0))
    assert found.shape == (4, 6, 3)
    assert np.abs(found[:, 1:-1].astype(int) - (10, 200, 30)).max() < 12
    assert notes == []


def test_small_ones_are_enlarged_and_said_to_be(tmp_path: Path) -> None:
    found, notes = read(saved(tmp_path / "a.png", np.full((1, 1, 3), 77, np.uint8)))
    assert (found == 77).all()
    assert notes == ["has 1 x 1 pixels, enlarged to 6 x 4"]


def test_transparent_becomes_white_and_opaque_stays(tmp_path: Path) -> None:
    clear = noise(*SIZE, 4)
    clear[..., 3] = 255
    found, notes = read(saved(tmp_path / "opaque.png", clear))
    assert np.array_equal(found, clear[..., :3])
    assert notes == []
    clear[0, :, 3] = 0
    found, notes = read(saved(tmp_path / "clear.png", clear))
    assert (found[0] == 255).all()
    assert np.array_equal(found[1:], clear[1:, :, :3])
    assert notes == ["is transparent, laid on white"]


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros(SIZE, np.uint8), "P")
    image.putpalette([9, 8, 7] * 256)
    found, notes = read(saved(tmp_path / "p.png", image, transparency=0))
    assert (found == 255).all()
    assert notes == ["is transparent, laid on white"]


def test_grey_has_three_like_channels(tmp_path: Path) -> None:
    grey = noise(*SIZE)[..., 0]
    found, notes = read(saved(tmp_path / "g.png", grey))
    assert np.array_equal(found, np.repeat(grey[..., None], 3, 2))
    assert notes == ["is grey, its three channels alike"]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = (np.arange(24).reshape(SIZE) * 2730).astype(np.uint16)
    found, notes = read(saved(tmp_path / "d.png", Image.fromarray(deep)))
    assert np.array_equal(found[..., 0], deep >> 8)
    assert notes[0] == "has 16 bits a channel, of which 8 are kept"


def test_sixteen_bit_colour_is_said_to_be_converted(tmp_path: Path) -> None:
    row = b"\0" + b"".join(struct.pack(">3H", 65535, 256 * n, 0) for n in range(6))
    path = tmp_path / "d.png"
    path.write_bytes(png(6, 4, 16, 2, zlib.compress(row * 4)))
    found, notes = read(path)
    assert found[2, 5].tolist() == [255, 5, 0]
    assert notes == ["has 16 bits a channel, of which 8 are kept"]


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    whole = noise(*SIZE)
    exif = Image.Exif()
    exif[0x0112] = 3  # by 180 degrees
    found, _ = read(saved(tmp_path / "r.png", whole, exif=exif))
    assert np.array_equal(found, whole[::-1, ::-1])


def png(width: int, height: int, bits: int, kind: int, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the one, and refuses the other
def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, zlib.compress(bytes(100))))
    assert "bomb.png has more than 89,478,485 pixels" in fault(tmp_path / "bomb.png")


def test_what_is_no_image_or_half_of_one(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.png", noise(64, 64)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "half.png is not a whole image" in fault(tmp_path / "half.png")
    (tmp_path / "text.png").write_text("Once upon a time")
    assert "text.png is no image of a known format (PNG, JPEG, WEBP)" in fault(tmp_path / "text.png")
    (tmp_path / "empty.jpg").touch()
    assert "empty.jpg is no image" in fault(tmp_path / "empty.jpg")
    saved(tmp_path / "a.gif", noise(64, 64)).rename(tmp_path / "gif.png")  # a format of which Pillow's code is not used
    assert "gif.png is no image of a known format" in fault(tmp_path / "gif.png")


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_animations_are_refused(tmp_path: Path, ending: str) -> None:
    frames = [Image.fromarray(noise(8, 8, seed=n)) for n in range(3)]
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:])
    assert f"a.{ending} is animated: 3 images" in fault(path)


def test_damage_anywhere_is_a_fault_and_never_a_traceback(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for ending in ("png", "jpg", "webp"):
        whole = bytearray(saved(tmp_path / f"a.{ending}", noise(16, 16)).read_bytes())
        for _ in range(60):
            damaged = bytearray(whole)
            for place in draw.integers(0, len(whole), 3):
                damaged[place] = int(draw.integers(256))
            (tmp_path / f"b.{ending}").write_bytes(damaged)
            with suppress(UserError):
                assert read(tmp_path / f"b.{ending}")[0].shape == (4, 6, 3)


def test_without_pillow_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = saved(tmp_path / "a.png", noise(*SIZE)), builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"without pillow.*pip install 'reformer-cli\[images\]'"):
        read(path)


def test_the_upper_part_is_scaled_to_the_width(tmp_path: Path) -> None:
    half = noise(2, 6)
    with open(saved(tmp_path / "half.png", half), "rb") as file:
        assert np.array_equal(top(file, "half.png", SIZE)[0], half)
    with open(saved(tmp_path / "large.png", noise(20, 60)), "rb") as file:
        assert top(file, "large.png", SIZE)[0].shape == (2, 6, 3)
    with (
        open(saved(tmp_path / "whole.png", noise(*SIZE)), "rb") as file,
        pytest.raises(UserError, match=r"whole.png has 4 rows .* --keep-rows 2"),
    ):
        top(file, "whole.png", SIZE)


def test_images_are_written_in_the_format_of_the_ending(tmp_path: Path) -> None:
    whole = noise(*SIZE)
    for ending, kind in (("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(as_bytes(whole, path))
        with Image.open(path) as image:
            assert image.format == kind
    assert np.array_equal(read(tmp_path / "a.png")[0], whole)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty images of SIZE, and files that are none."""
    found = tmp_path / "images"
    (found / "more").mkdir(parents=True)
    for n in range(40):
        saved(found / ("more" if n % 2 else "") / f"{n:02}.png", noise(*SIZE, seed=n))
    (found / "notes.txt").write_text("no image")
    return found


def tokens_of(folder: Path, **settings: Any) -> TokenFiles:
    data = DataConfig(corpus=(str(folder),), image_size=SIZE, context=72, **settings)
    return open_dataset(data, silent).tokens


def test_a_corpus_of_images_is_their_bytes(folder: Path) -> None:
    options = Options(image_size=SIZE)
    with scanned([str(folder)], options, 1, silent) as found:
        assert (found.documents, found.bytes, found.n_faults) == (40, 40 * 72, 0)
        assert found.skipped == {"ending .txt": 1}
        documents = {n: "".join(t) for _, s, r in found.files() for _, n, _, t in reread(s, r, options)}
    ids = PixelTokenizer().encode(documents[str(folder / "more" / "07.png")])
    assert np.array_equal(ids.reshape(4, 6, 3), noise(*SIZE, seed=7))


def test_whole_images_are_held_out_and_each_context_is_one(folder: Path) -> None:
    tokens = tokens_of(folder, val_fraction=0.1)
    assert (len(tokens.train), len(tokens.validation)) == (36 * 73, 4 * 72)
    batches = Batches(tokens, tokens.end, 72, 4, seed=3, whole=True)
    assert batches.per_epoch == 36
    images = {noise(*SIZE, seed=n).tobytes() for n in range(40)}
    seen = set()
    for step in range(9):
        batch = batches.batch_at(step)
        assert batch.documents is None
        assert (batch.tokens[:, 0] == 256).all()
        assert (batch.tokens[:, 1:] == batch.targets[:, :-1]).all()
        seen |= {row.numpy().astype(np.uint8).tobytes() for row in batch.targets}
    windows = ValidationWindows(tokens, 72)
    held_out = {w.scored.numpy().astype(np.uint8).tobytes() for w in windows}
    assert [len(w.prefix) for w in windows] == [1] * 4
    assert [w.text.bytes for w in windows] == [72] * 4
    assert len(seen) == 36
    assert len(held_out) == 4
    assert seen | held_out == images


def test_large_images_are_held_out_whole_too() -> None:
    rule = Share(0.25, 8, 8 * 100_000, whole=True)  # longer than what is otherwise cut
    assert sum(rule.tail(100_000) for _ in range(8)) == 200_000


def test_all_held_out_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    saved(tmp_path / "one" / "a.png", noise(*SIZE))
    tokens = tokens_of(tmp_path / "one", val_fraction=0.5)
    with pytest.raises(UserError, match="all images are held out"):
        Batches(tokens, tokens.end, 72, 1, 0, whole=True)


def test_faults_and_conversions_are_counted(folder: Path) -> None:
    (folder / "bad.png").write_text("x")
    saved(folder / "grey.png", noise(*SIZE)[..., 0])
    with pytest.raises(UserError, match=r"bad.png is no image .*data.errors=skip"):
        tokens_of(folder)
    said: list[str] = []
    data = DataConfig(corpus=(str(folder),), image_size=SIZE, context=72, errors="skip")
    assert open_dataset(data, said.append).tokens.documents == 41
    assert f"warning: 1 images were converted; the first: {folder}/grey.png is grey, its three channels alike" in said


def test_an_image_black_as_space_is_no_empty_corpus(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", np.full((*SIZE, 3), 32, np.uint8))  # the byte of a space: a text without words
    assert len(tokens_of(tmp_path, val_fraction=0.0).train) == 73


def test_the_tokenizer_loses_nothing() -> None:
    every = bytes(range(256)).decode("latin-1")
    tokenizer = deserialise(PixelTokenizer().serialise())
    assert isinstance(tokenizer, PixelTokenizer)
    assert tokenizer.encode(every).tolist() == list(range(256))
    assert tokenizer.decode(tokenizer.encode(every)) == every
    stream = tokenizer.stream()
    assert "".join(map(stream.push, range(256))) + stream.finish() == every
    with pytest.raises(UserError, match="no tokens for text"):
        tokenizer.encode("“")
