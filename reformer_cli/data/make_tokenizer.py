"""The tokenizer of a corpus: as its config asks, trained on what is trained on alone, and kept for the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reformer_cli.config.schema import DataConfig, SubwordKind
from reformer_cli.data.scan import Scan, reread
from reformer_cli.data.split import Rule, Share, share_of, split
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer, Tokenizer
from reformer_cli.tokenizers.load import load_tokenizer
from reformer_cli.tokenizers.subword import choose_vocab_size, train_subwords
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, key, write_file
from reformer_cli.utils.format import as_size
from reformer_cli.utils.progress_bar import shown

VERSION = 5  # of how they are trained: a change makes vocabularies be made again
TINY = 50_000  # characters below which `tokenizer: auto` means bytes


def tokenizer_for(data: DataConfig, scan: Scan, report: Callable[[str], None], case_markers: bool = True) -> Tokenizer:
    """The tokenizer the config asks for, the same one as before where one was made. case_markers: with such markers
    unless they lengthen the text. Raises UserError."""
    if data.image_size is not None:
        return PixelTokenizer()
    if data.tokenizer == "bytes" or (data.tokenizer == "auto" and not data.vocab_size and scan.characters < TINY):
        if data.vocab_size not in (None, ByteTokenizer.vocab_size):
            raise UserError(
                f"data.vocab_size {data.vocab_size} does not go with bytes: {ByteTokenizer.vocab_size} tokens",
                "leave it out, or choose tokenizer bpe",
            )
        return ByteTokenizer()
    size, share = data.vocab_size or choose_vocab_size(scan.characters), share_of(data)
    kind: SubwordKind = "unigram" if data.tokenizer == "unigram" else "bpe"
    path = cache_folder() / "tokenizers" / f"{key(VERSION, kind, scan.digest, size, share, case_markers)}.model"
    if path.exists():
        try:
            return load_tokenizer(path)
        except UserError:
            report(f"{path} is damaged and made again")
    report(f"training a tokenizer of {size:,} tokens on {scan.characters:,} characters ...")
    rule = Share(share, scan.documents, scan.characters)
    with shown("sampling", scan.bytes, report, as_size) as advance:
        tokenizer = train_subwords(
            _trained_on(scan, rule, advance), size, scan.characters, kind=kind, case_markers=case_markers
        )
    if case_markers and not tokenizer.has_case_markers:
        report("words are not stripped of their capitals: that would make this text longer")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, tokenizer.serialise())
    return tokenizer


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
