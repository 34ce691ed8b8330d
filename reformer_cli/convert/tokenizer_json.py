"""Our tokenizers as tokenizer.json, the format of Hugging Face's `tokenizers`, with the same ids for the same text.

There is no code in that file: a normaliser rewrites the text, merges make it tokens, a decoder undoes both.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.tokenizers.enwik8_bytes import SHIFT, ShiftedByteTokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer
from reformer_cli.tokenizers.subword import END, NIBBLES, SPACE, SYMBOLS, UNKNOWN, SubwordTokenizer
from reformer_cli.utils.errors import UserError

END_NAME, PAD_NAME, UNKNOWN_NAME = "<|endoftext|>", "<|pad|>", "<|unknown|>"
MARK = "\U000fffff"  # put after each pair of nibbles: a private character that no step makes otherwise
HELD = 0xF0000  # private characters that stand for the alphabet while bytes are rewritten
Step = dict[str, Any]


def tokenizer_files(tokenizer: Tokenizer, longest: int) -> dict[str, bytes]:
    """File name -> content. longest: tokens that the model can read. UserError for one that cannot be said there."""
    if isinstance(tokenizer, SubwordTokenizer):
        if tokenizer.has_case_markers:
            raise UserError(
                "transformers cannot undo the case markers of this tokenizer",
                "train a model that is to be exported with --tokenizer FILE, made by `reformer tokenizer train "
                "--no-case-markers`",
            )
        if tokenizer.kind != "bpe":
            raise UserError(
                "where two ways to cut a text are equally likely, transformers may take the other than this unigram "
                "tokenizer",
                "train with --set data.tokenizer=bpe a model that is to be exported",
            )
        whole = _ours(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        whole = _foreign(tokenizer)
    elif isinstance(tokenizer, ByteTokenizer):
        whole = _bytes({_visible(b): b for b in range(256)} | {END_NAME: tokenizer.end}, [END_NAME])
    elif isinstance(tokenizer, ShiftedByteTokenizer):
        names = {END_NAME: tokenizer.end, PAD_NAME: 1}
        whole = _bytes(names | {_visible(b): b + SHIFT for b in range(256)}, list(names))
    else:
        raise UserError(f"a tokenizer of kind {tokenizer.kind} cannot be written for transformers")
    special = {token["content"]: token["id"] for token in whole["added_tokens"]}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    config |= {"clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"]}
    # A text that holds a special token's name is text, as it is for our own tokenizers.
    config |= {"split_special_tokens": True}
    config |= {"eos_token": next(name for name, n in special.items() if n == tokenizer.end)}
    if (unknown := whole["model"].get("unk_token")) is not None:
        config["unk_token"] = unknown
    files = {"tokenizer.json": whole, "tokenizer_config.json": config}
    return {name: json.dumps(content, ensure_ascii=False).encode() for name, content in files.items()}


def _whole(model: Step, added: list[Step], normalizer: Step | None, pre: Step | None, decoder: Step) -> Step:
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": sorted(added, key=lambda t: t["id"]),
        "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip


def _added(content: str, number: int) -> Step:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content} | flags


def _merging(vocabulary: dict[str, int], merges: list[list[str]], unknown: str | None, byte_fallback: bool) -> Step:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": byte_fallback, "ignore_merges": False,
        "vocab": vocabulary, "merges": merges,
    }  # fmt: skip


def _bytes(vocabulary: dict[str, int], special: list[str]) -> Step:
    """A token a byte: no merges."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = [_added(name, vocabulary[name]) for name in special]
    return _whole(_merging(vocabulary, [], None, False), added, None, level, level)


def _ours(tokenizer: SubwordTokenizer) -> Step:
    """The lossless BPE. What `subword.py` does to a text before sentencepiece sees it is done here in steps: to bytes,
    from these back to the characters of the alphabet, and all other bytes to two nibbles each."""
    pieces = tokenizer.names()
    names = {UNKNOWN: UNKNOWN_NAME, END: END_NAME}
    vocabulary = {names.get(n, piece): n for n, piece in enumerate(pieces)}
    signs = {char: sign for char, sign in {**SYMBOLS, " ": SPACE}.items() if sign in vocabulary}
    plain = {piece for n, piece in enumerate(pieces) if len(piece) == 1 and n not in names}
    alphabet = sorted(plain - set(NIBBLES) - set(signs.values()))
    wide = [c for c in alphabet if ord(c) > 127]
    held = {c: chr(HELD + n) for n, c in enumerate(wide)}
    kept = {ord(c) for c in alphabet if ord(c) < 128} | {ord(c) for c in signs}
    spelt = {b: NIBBLES[b >> 4] + NIBBLES[b & 15] for b in range(256) if b not in kept}
    there = [{"type": "ByteLevel"}]
    there += [_replace(_as_bytes(c), held[c]) for c in wide]
    there += [_replace(_visible(b), pair) for b, pair in spelt.items()]
    there += [_replace(_visible(ord(c)), sign) for c, sign in signs.items()]
    there += [_replace(held[c], c) for c in wide]
    one = f"[{NIBBLES[0]}-{NIBBLES[-1]}]"
    back: list[Step] = [{"type": "Fuse"}]
    back += [_replace(c, held[c]) for c in wide]
    # \G holds on where the pair before ended: pairs are told from the first nibble of a run on.
    back += [_replace(f"(?:\\G|(?<!{one})){one}{{2}}\\K", MARK, regex=True)]
    back += [_replace(pair + MARK, _visible(b)) for b, pair in spelt.items()]
    back += [_replace(f"{one}|{MARK}", "", regex=True)]
    back += [_replace(sign, _visible(ord(c))) for c, sign in signs.items()]
    back += [_replace(held[c], _as_bytes(c)) for c in wide]
    back += [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]
    special = [_added(name, n) for n, name in names.items()]
    model = _merging(vocabulary, _merges(pieces, set(names)), UNKNOWN_NAME, False)
    return _whole(model, special, _sequence("normalizers", there), None, _sequence("decoders", back))


def _foreign(tokenizer: SentencePieceTokenizer) -> Step:
    """A sentencepiece model: its own normalisation, then unigram or BPE."""
    facts, pieces = tokenizer.facts, tokenizer.pieces
    wrong = [f"kind {facts.kind} (bpe or unigram)"] if facts.kind not in ("bpe", "unigram") else []
    wrong += (
        ["spaces that are not escaped or follow words"] if not facts.escapes_spaces or facts.spaces_after_words else []
    )
    wrong += [f"{len(facts.user_defined)} user-defined pieces"] if facts.user_defined else []
    if wrong:
        raise UserError(f"a sentencepiece model with {', '.join(wrong)} cannot be written for transformers")
    unknown, special = tokenizer.unknown(), set(tokenizer.special("control")) | {tokenizer.unknown()}
    names = pieces + [f"<|unused{n}|>" for n in range(len(pieces), tokenizer.vocab_size)]
    added = [_added(names[n], n) for n in special | {tokenizer.end}]
    fallback = bool(tokenizer.special("byte"))
    model: Step
    if facts.kind == "bpe":
        vocabulary = {piece: n for n, piece in enumerate(names)}
        outside = special | set(tokenizer.special("byte")) | set(range(len(pieces), tokenizer.vocab_size))
        order = sorted((n for n in range(len(pieces)) if n not in outside), key=lambda n: -tokenizer.score(n))
        model = _merging(vocabulary, _merges([pieces[n] for n in order], set()), pieces[unknown], fallback)
    else:
        scores = [tokenizer.score(n) for n in range(len(pieces))] + [0.0] * (len(names) - len(pieces))
        vocab = [[piece, score] for piece, score in zip(names, scores, strict=True)]
        model = {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": fallback}
    steps: list[Step] = []
    if facts.charsmap:
        charsmap = base64.b64encode(facts.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if facts.collapses_spaces:
        steps += [_replace(" {2,}", " ", regex=True), {"type": "Strip", "strip_left": True, "strip_right": True}]
    if facts.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace(" ", SPACE))
    back: list[Step] = [_replace(SPACE, " ")]
    back += [{"type": "ByteFallback"}] if fallback else []
    back.append({"type": "Fuse"})
    if facts.dummy_prefix:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _whole(model, added, _sequence("normalizers", steps), None, _sequence("decoders", back))


def _merges(pieces: Iterable[str], without: set[int]) -> list[list[str]]:
    """The pairs that make each piece, those of the first pieces first; pieces: the best first; without: of no pair."""
    known = [piece for n, piece in enumerate(pieces) if n not in without]
    every = set(known)
    found = []
    for piece in known:
        halves = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        found += [[left, right] for left, right in halves if left in every and right in every]
    return found


def _replace(pattern: str, content: str, regex: bool = False) -> Step:
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def _sequence(name: str, steps: list[Step]) -> Step:
    return {"type": "Sequence", name: steps}


def _as_bytes(text: str) -> str:
    return "".join(map(_visible, text.encode()))


def _visible(byte: int) -> str:
    """The character by which `ByteLevel` shows a byte: itself where it is printable, else one from U+0100 on."""
    if _printable(byte):
        return chr(byte)
    return chr(0x100 + sum(1 for b in range(byte) if not _printable(b)))


def _printable(byte: int) -> bool:
    return 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
