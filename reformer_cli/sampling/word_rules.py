"""Which words a text may go on with: known ones (--lexicon known), none that makes a copy too long (--max-copy).

A token that a rule refuses is drawn again, before the model has read it: nothing is to be taken back, each text uses
its own random numbers alone, and what is drawn is what the model gives to the words that may come. A word that has only
begun is refused too where nothing that may come begins so; hence no word is ever half written and then stuck.
"""

from __future__ import annotations

import codecs
import copy
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

from reformer_cli.novelty.index import TextIndex
from reformer_cli.novelty.words import APOSTROPHES, INNER, JOINING, WORD, spelling
from reformer_cli.tokenizers.base import Tokenizer

OPEN = re.compile(INNER)  # what a word may go on after
LETTERS = re.compile(r"[^\W\d_]+")
SHORT = 3  # letters that may stand before a capital within a word: McDonald, MacGregor, DeVries


class WordRule(Protocol):
    """Asked of words by their spelling (novelty/words.py). last: how many words before the new one it looks at;
    strict: whether a text ends where no word may come, or goes on with any; spells: whether capitals must stand where
    words have them. characters: code points that words may have, sorted; None: all."""

    @property
    def last(self) -> int: ...
    @property
    def strict(self) -> bool: ...
    @property
    def spells(self) -> bool: ...
    @property
    def characters(self) -> Sequence[int] | None: ...

    def allows(self, before: Sequence[str], word: str) -> bool:
        """Whether a word may stand after these."""

    def allows_beginning(self, before: Sequence[str], letters: str) -> bool:
        """Whether a word may begin so."""

    def learn(self, word: str) -> None:
        """It stands in the prompt."""

    def copy(self) -> WordRule:
        """An independent one, for another text."""


class KnownWords:
    """Words of a list and of the prompt, those with 's, and whatever begins with a digit."""

    last, strict, spells = 0, False, True

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words))
        self.told = list[str]()  # sorted too
        letters = set().union(*self.words)
        self.characters = sorted({ord(c) for letter in letters for c in letter + letter.upper()})

    def allows(self, before: Sequence[str], word: str) -> bool:
        """As `WordRule.allows`."""
        word = word.removesuffix("'s")
        return any(_from(words, word) == word for words in (self.words, self.told)) or _is_number(word)

    def allows_beginning(self, before: Sequence[str], letters: str) -> bool:
        """As `WordRule.allows_beginning`."""
        known = any(_from(words, letters).startswith(letters) for words in (self.words, self.told))
        return known or _is_number(letters) or (letters.endswith("'s") and self.allows(before, letters))

    def learn(self, word: str) -> None:
        """As `WordRule.learn`."""
        if not self.allows((), word):
            insort(self.told, word)

    def copy(self) -> WordRule:
        """As `WordRule.copy`."""
        other = copy.copy(self)
        other.told = list(self.told)
        return other


class NoLongCopies:
    """Never more than `most` words in a row that stand in an indexed text."""

    strict, spells, characters = True, False, None

    def __init__(self, index: TextIndex, most: int) -> None:
        self.index, self.last = index, most
        self._next: dict[tuple[str, ...], list[str]] = {}

    def allows(self, before: Sequence[str], word: str) -> bool:
        """As `WordRule.allows`."""
        word = _plain(word)
        return _from(self._following(before), word) != word

    def allows_beginning(self, before: Sequence[str], letters: str) -> bool:
        """As `WordRule.allows_beginning`: not as a word begins that would make a copy too long."""
        letters = _plain(letters)
        return not _from(self._following(before), letters).startswith(letters)

    def learn(self, word: str) -> None:
        """As `WordRule.learn`."""

    def copy(self) -> WordRule:
        """As `WordRule.copy`: nothing in it changes."""
        return self

    def _following(self, before: Sequence[str]) -> list[str]:
        """Words that would make the copy too long, sorted."""
        key = tuple(map(_plain, before[-self.last :]))
        if len(key) < self.last:
            return []
        if key not in self._next:
            self._next[key] = sorted(self.index.following(self.index.codes(key)))
        return self._next[key]


class WordWatch:
    """Of one text: its last words, the letters of the one that is being written, and what the rules say of a token."""

    def __init__(self, tokenizer: Tokenizer, rules: Sequence[WordRule]) -> None:
        self.rules = rules
        self.strict = any(rule.strict for rule in rules)
        self._spells = any(rule.spells for rule in rules)
        self._odd = set[str]()  # words of the prompt that mix capitals and small letters
        self._decoder, self._end = tokenizer.stream(), tokenizer.end
        self._utf8 = codecs.getincrementaldecoder("utf-8")("ignore")
        self._keep = max((rule.last for rule in rules), default=0)
        self.before, self.open = list[str](), ""  # words, and the characters of the unfinished one

    def extend(self, tokens: Sequence[int], drawn: bool = False) -> None:
        """These came next; drawn: after `refuses` was asked of each."""
        for token in tokens:
            found, self.open = self._read(self._utf8.decode(self._decoder.feed(token)), token)
            words = [spelling(word) for word in found]
            for rule in self.rules if not drawn else ():
                for word in words:
                    rule.learn(word)
            self._odd.update(word for word in found if not drawn and is_mixed(word))
            self.before = [*self.before, *words][-self._keep :] if self._keep else []
        begun = spelling(self.open)
        for rule in self.rules if begun and not drawn else ():
            if not rule.allows_beginning(self.before, begun):
                rule.learn(begun)

    def refuses(self, token: int) -> bool:
        """Whether a rule is against what this token would write."""
        state = self._utf8.getstate()
        text = self._utf8.decode(self._decoder.after(token)[0])
        waiting = self._utf8.getstate()[0]
        self._utf8.setstate(state)
        if waiting and not text:
            return not any(not self._refuses_text(character, token) for character in self._possible(waiting))
        return (bool(text) or token == self._end) and self._refuses_text(text, token)

    def _possible(self, waiting: bytes) -> Iterator[str]:
        """Characters that bytes may become, one for all that words are not made of."""
        points = _characters(waiting)
        if not _are_letters(points):
            yield "\n"
        yield from (sign for sign in JOINING if ord(sign) in points)
        known = [rule.characters for rule in self.rules if rule.characters is not None]
        yield from map(chr, (p for each in known for p in each[bisect_left(each, points[0]) :] if p in points))
        if not known:
            yield chr(points[0])

    def _refuses_text(self, text: str, token: int) -> bool:
        before, (found, left) = self.before, self._read(text, token)
        if self._spells and any(map(self._is_odd, [*found, left])):
            return True
        for word in map(spelling, found):
            if not all(rule.allows(before, word) for rule in self.rules):
                return True
            before = [*before, word]
        if left and left[-1] in APOSTROPHES and all(rule.allows(before, spelling(left[:-1])) for rule in self.rules):
            return False  # a word, and the end of a quotation
        begun = spelling(left)
        return bool(left) and not all(rule.allows_beginning(before, begun) for rule in self.rules)

    def _is_odd(self, letters: str) -> bool:
        return is_mixed(letters) and not any(word.startswith(letters) for word in self._odd)

    def copy(self) -> WordWatch:
        """An independent one."""
        other = copy.copy(self)
        other._odd = set(self._odd)
        other.rules = [rule.copy() for rule in self.rules]
        other._decoder, other._utf8 = copy.deepcopy(self._decoder), copy.deepcopy(self._utf8)
        return other

    def _read(self, text: str, token: int) -> tuple[list[str], str]:
        """Words as written that are whole after this text, and the characters of one that may go on."""
        text = self.open + text
        found = list(WORD.finditer(text))
        if not found:
            return [], ""
        last = found[-1]
        goes_on = token != self._end and _is_letters(last.group()) and OPEN.fullmatch(text, last.end()) is not None
        words = [match.group() for match in (found[:-1] if goes_on else found)]
        return words, text[last.start() :] if goes_on else ""


def is_mixed(word: str) -> bool:
    """Whether capitals stand where no word has them: CramptonS, MENdicant; but O'Brien and McDonald are as they should
    be."""
    for part in LETTERS.findall(word):
        rest = part[1:]
        inner = next((n for n, letter in enumerate(rest, 1) if letter.isupper()), 0)
        name = part[0].isupper() and 2 <= inner <= SHORT and part[inner + 1 :] == part[inner + 1 :].lower()
        if inner and part != part.upper() and not name:
            return True
    return False


def _is_letters(word: str) -> bool:
    """Whether more letters would make it longer: a character of a script without spaces is a word by itself."""
    return WORD.fullmatch(word + "a") is not None


def _characters(waiting: bytes) -> range:
    """Code points that UTF-8 may still make of bytes that are not a whole character."""
    missing = (2 if waiting[0] < 0xE0 else 3 if waiting[0] < 0xF0 else 4) - len(waiting)
    bits = waiting[0] & (0x1F if waiting[0] < 0xE0 else 0x0F if waiting[0] < 0xF0 else 0x07)
    for byte in waiting[1:]:
        bits = bits << 6 | byte & 0x3F
    least = 0x80 if waiting[0] < 0xE0 else 0x800 if waiting[0] < 0xF0 else 0x10000
    return range(max(least, bits << 6 * missing), min(0x110000, (bits + 1) << 6 * missing))


@lru_cache(1000)
def _are_letters(points: range) -> bool:
    """Whether words are made of all of these characters."""
    return all(WORD.match(chr(point)) for point in points)


def _from(words: Sequence[str], letters: str) -> str:
    """The first of sorted words that is not before these letters, empty where there is none."""
    at = bisect_left(words, letters)
    return words[at] if at < len(words) else ""


def _plain(word: str) -> str:
    return word.replace("'", "")


def _is_number(word: str) -> bool:
    return word[:1].isdigit()
