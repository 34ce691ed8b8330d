"""Case markers: each word once in a vocabulary, and not a character of the text lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reformer_cli.tokenizers.base import CHUNK, safe_pieces
from reformer_cli.tokenizers.case_markers import CAPITAL, CAPITALS, GLUED, GLUING, NOTHING, add_markers, resolve_markers
from reformer_cli.tokenizers.subword import SubwordTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords

TEXT = (
    '“You?” he said. THE END\nSonia wept - O\'Brien (the "old" one) did not,\n\n'
    "for he'd cross-examined her: “I am—she said—ill.”\n" * 40
)
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzéß")
TOKENIZER, PLAIN = train_subwords([TEXT], 400), train_subwords([TEXT], 400, case_markers=False)
# Capitals that are several letters, longer or shorter in small, or in no alphabet; markers that the text holds itself.
ODD = "aAbBéÉßẞİıǅﬃſΣςσⅧ²中“”\"'-—_( \n\t.\ue000\ue012\ue013\ue014ⱥȺ"


def markers(text: str) -> str:
    """Readable: ^ a capital, ^^ capitals, what is glued before ¤."""
    names = {CAPITAL: "^", CAPITALS: "^^"} | {marker: f"{char}¤" for char, marker in GLUED.items()}
    return "".join(names.get(char, char) for char in text)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("He said: “You?”\nSonia", "^he said: “¤^ you?”\n¤^ sonia"),
        ("THE END. I am", "^^the^^ end.^ i am"),
        ("don't 'tis O'Brien", "don't '¤ tis^ o'^brien"),
        ("cross-examined (she)", "cross-¤ examined (¤ she)"),
        ("“ you", "“ you"),  # a space that is there is none to take back
        ("McDonald iPhone A²B", "McDonald iPhone A²B"),  # could not be undone
        ("3rd, a.b “3”", "3rd, a.b “3”"),
    ],
)
def test_markers_are_added(text: str, marked: str) -> None:
    assert markers(add_markers(text, frozenset(GLUING), LETTERS)) == marked


def test_a_word_is_one_row_of_tokens_wherever_it_stands() -> None:
    """The bug it is for: `the`, ` the`, `The` and ` The` were four tokens that each had to be learnt."""
    names = TOKENIZER.names()

    def without_signs(text: str) -> list[str]:
        return [names[n] for n in TOKENIZER.encode(text) if names[n] not in (CAPITAL, CAPITALS, *GLUED.values())]

    word = without_signs(" said")
    for text in ("\nsaid", " Said", "\nSAID", "—said", "(Said"):
        assert without_signs(text) == word, text


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=ODD, max_size=30))
@pytest.mark.parametrize("tokenizer", [TOKENIZER, PLAIN], ids=["marked", "plain"])
def test_nothing_is_lost_and_every_byte_counted(tokenizer: SubwordTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=20))
def test_any_tokens_have_a_text(ids: list[int]) -> None:
    """A model may draw a marker where none belongs: what it stands for must not depend on how the text arrives."""
    whole, stream = TOKENIZER.decode(np.array(ids, np.int32)), TOKENIZER.stream()
    assert "".join(stream.push(n) for n in ids) + stream.finish() == whole


@settings(max_examples=200, deadline=None)
@example(" ", "BB", False)  # a word in capitals after a space that the prompt ends in
@given(st.text(alphabet="aB \n“-'", min_size=1, max_size=20), st.text(alphabet="aB \n“-'", max_size=20), st.booleans())
def test_what_follows_a_prompt_is_among_its_spellings(prompt: str, after: str, first: bool) -> None:
    """Wherever a text is cut, its own tokens go on from the prompt's; and whatever is chosen writes the prompt."""
    known = TOKENIZER.prompt(prompt, first)
    lead = " " if first and prompt[0].isalpha() else ""
    whole = TOKENIZER.encode("\n" + prompt + after)[1:].tolist() if lead else TOKENIZER.encode(prompt + after).tolist()
    for tokens, beyond in known.spelt:
        for last in beyond[:3] + beyond[-3:] or [None]:
            made = [*known.ids, *tokens, *([last] if last is not None else [])]
            text = TOKENIZER.decode(np.array(made, np.int32))
            assert text.startswith(lead + prompt) if beyond else text == lead + prompt
    ways = [([*known.ids, *tokens], beyond) for tokens, beyond in known.spelt]
    fitting = [ids for ids, beyond in ways if whole[: len(ids)] == ids and (not beyond or whole[len(ids)] in beyond)]
    assert len(fitting) == 1 or unusual(prompt + after)


def unusual(text: str) -> bool:
    """A word in mixed letters, or an apostrophe that the cut turns into a quotation mark."""
    words = re.findall(r"[^\W\d_]+", text)
    return "'" in text or any(w[1:] != w[1:].lower() and w != w.upper() for w in words)


def test_a_prompt_within_a_word_or_before_one() -> None:
    """The bugs they are for: "the doo" went on with "m"; after a plain “ a marked model has seen no word."""
    names = TOKENIZER.names()
    for text, marker in (("He said: “", GLUED["“"]), ("said (", GLUED["("]), ("said\n", GLUED["\n"])):
        assert [names[way.tokens[-1]] for way in TOKENIZER.prompt(text).spelt].count(marker) == 1
    tokens, after = TOKENIZER.prompt("Son").spelt[0]
    assert [names[n] for n in tokens] == [CAPITAL]
    assert all(names[n].startswith("▁son") for n in after)  # the first word is a word, not a word's end


@pytest.mark.parametrize("line", ["word ", "A", "Word\n", "(a-", "ABC. "])
def test_long_texts_are_cut_where_it_does_not_matter(line: str) -> None:
    """Of a capitalised word cut in two, the second part was read in capitals."""
    text = line * (3 * CHUNK // len(line)) + "aaa"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert "".join(safe_pieces([text])) == text


def test_resolving_goes_on_from_piece_to_piece() -> None:
    pending, found = NOTHING, []
    for piece in (" th", "e", "-b"):
        text, pending = resolve_markers(piece, pending._replace(marker=CAPITALS) if not found else pending)
        found.append(text)
    assert found == [" TH", "E", "-b"]
    assert pending is NOTHING


@pytest.mark.parametrize("shape", ["lines of capitals", "one line", "a novel's"])
def test_a_genome_has_no_case_markers(shape: str) -> None:
    """Their capitals took two tokens a letter: words longer than those that are marked were spelt out byte by byte."""
    letters = np.random.default_rng(0).choice([*"ACGT"], 120_000)
    text = "".join(letters)
    if shape != "one line":
        text = "\n".join(text[n : n + 60] for n in range(0, len(text), 60))
    if shape == "a novel's":
        text = "\n".join(f"{line.capitalize()} and {line.lower()}." for line in text.split("\n"))
    tokenizer = train_subwords([text], 512)
    assert tokenizer.has_case_markers is (shape != "lines of capitals")
    ids = tokenizer.encode(text)
    assert len(ids) < len(text) / 2
    assert tokenizer.decode(ids) == text
