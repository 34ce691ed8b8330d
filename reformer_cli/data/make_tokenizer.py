"""The tokenizer of a corpus: as its config asks, trained on what is trained on alone, and kept for the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reformer_cli.config.schema import DataConfig, SubwordKind
from reformer_cli.data.scan import Scan, reread
from reformer_cli.data.split import Rule, Share, share_of, split
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer, Tokenizer
from reformer_cli.tokenizers.load import load_tokenizer
from reformer_cli.tokenizers.train_subword import is_worth_it, sample_of, train_on
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, key, write_file
from reformer_cli.utils.format import as_size
from reformer_cli.utils.progress_bar import shown

VERSION = 6  # of how they are trained: a change makes vocabularies be made again
TINY = 8_000  # characters below which `tokenizer: auto` means bytes


def tokenizer_for(
    data: DataConfig, scan: Scan, report: Callable[[str], None], case_markers: bool = True, size: int | None = None
) -> Tokenizer:
    """The tokenizer the config asks for, the same one as before where one was made. case_markers: with such markers
    unless they lengthen the text; size: tokens, where the config leaves them open. Raises UserError."""
    if data.image_size is not None:
        return PixelTokenizer()
    if as_bytes(vars(data), scan.characters):
        if data.vocab_size not in (None, ByteTokenizer.vocab_size):
            raise UserError(
                f"data.vocab_size {data.vocab_size} does not go with bytes: {ByteTokenizer.vocab_size} tokens",
                "leave it out, or choose tokenizer bpe",
            )
        return ByteTokenizer()
    share = share_of(data)
    kind: SubwordKind = "unigram" if data.tokenizer == "unigram" else "bpe"
    free = data.tokenizer == "auto" and not data.vocab_size
    size = data.vocab_size or size
    parts = VERSION, kind, free, scan.digest, size, share, case_markers
    path = cache_folder() / "tokenizers" / f"{key(*parts)}.model"
    if path.exists():
        try:
            return load_tokenizer(path)
        except UserError:
            report(f"{path} is damaged and made again")
    report(f"training a tokenizer on {scan.characters:,} characters ...")
    rule = Share(share, scan.documents, scan.characters)
    with shown("sampling", scan.bytes, report, as_size) as advance:
        sample, characters = sample_of(_trained_on(scan, rule, advance), scan.characters)
        made = train_on(sample, characters, size, kind, case_markers)
    tokenizer: Tokenizer = made
    if free and not is_worth_it(made, sample):
        report("a token is a byte: parts of words would be noise in this text, or longer than it")
        tokenizer = ByteTokenizer()
    elif case_markers and not made.has_case_markers:
        report("words are not stripped of their capitals: that would make no text of this kind shorter")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, tokenizer.serialise())
    return tokenizer


def as_bytes(data: Mapping[str, Any], characters: int) -> bool:
    """Whether a text of so many characters is read as bytes. data: settings of DataConfig, by name."""
    kind = data.get("tokenizer", "auto")
    return kind == "bytes" or (kind == "auto" and not data.get("vocab_size") and characters < TINY)


def check_kind(data: DataConfig, tokenizer: Tokenizer) -> None:
    """Raises UserError for a tokenizer of text where the corpus is images, and the reverse."""
    of_images = tokenizer.kind == PixelTokenizer.kind
    if data.image_size is not None and not of_images:
        raise UserError("the tokenizer is for text, data.image_size is for images", "leave one of them out")
    if data.image_size is None and of_images:
        raise UserError("the tokenizer is for images", "say their size: --set data.image_size=[HEIGHT,WIDTH]")


def _trained_on(scan: Scan, rule: Rule, advance: Callable[[int], None]) -> Iterator[Iterator[str]]:
    """The training part of each document, in pieces."""
    for _, source, record in scan.files():
        for _, _, length, pieces in reread(source, record, scan.options):
            yield (piece for for_validation, piece in split(pieces, length, rule.tail(length)) if not for_validation)
        advance(record.bytes)
