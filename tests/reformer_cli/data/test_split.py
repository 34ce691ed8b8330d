"""What is held out: the ends of few documents, some of many, and cut at the same place however the text comes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_cli.data.split import MANY, MOST, SHORT, Everything, Share, split


def parts(pieces: list[str], share: float) -> tuple[str, str]:
    text = "".join(pieces)
    found = [*split(pieces, len(text), Share(share, 1, len(text)).tail(len(text)))]
    kinds = [held for held, _ in found]
    assert kinds == sorted(kinds)
    return "".join(t for held, t in found if not held), "".join(t for held, t in found if held)


def test_the_cut_is_at_a_line_break() -> None:
    assert parts(["aaa\nbbb\nccc\nddd\n"], 0.3) == ("aaa\nbbb\nccc\n", "ddd\n")
    assert parts(["x" * 100], 0.1) == ("x" * 90, "x" * 10)
    assert parts(["abc"], 0.0) == ("abc", "")
    assert parts(["x" * 5000 + "\n", "y"], 0.5) == ("x" * 2501, "x" * 2499 + "\ny")  # no line's end is near


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab\n", max_size=30).map(lambda s: s * 40), min_size=1), st.floats(0, 0.5))
def test_pieces_do_not_move_the_cut(pieces: list[str], share: float) -> None:
    text = "".join(pieces)
    at = round(len(text) * (1 - share))
    line = text.find("\n", at) + 1
    cut = line if 0 < line < len(text) and line - at < 2000 and at < len(text) else at
    assert parts(pieces, share) == (text[:cut], text[cut:])


def test_of_many_short_documents_whole_ones_are_held_out() -> None:
    """Five percent of a tweet is no text to validate on."""
    n = 10 * MANY
    rule = Share(0.05, n, n * 300)
    tails = [rule.tail(300) for _ in range(n)]
    assert {*tails} == {0, 300}
    assert sum(tails) == 0.05 * n * 300
    assert np.diff(np.flatnonzero(tails)).max() == 20  # spread evenly


def test_long_ones_among_many_give_their_ends() -> None:
    n = 2 * MANY
    lengths = [SHORT * 5 if k % 4 == 0 else 200 for k in range(n)]
    rule = Share(0.05, n, sum(lengths))
    tails = [rule.tail(length) for length in lengths]
    assert {*tails} == {0, 200, SHORT // 4}
    assert abs(sum(tails) - min(MOST, 0.05 * sum(lengths))) < SHORT


def test_no_more_is_held_out_than_can_be_scored() -> None:
    """Five percent of ten gigabytes would be scored for hours at the end of a run of minutes."""
    for n in (1, 10, MANY, 2 * MANY, 20 * MANY):
        length = 10**10 // n
        rule = Share(0.05, n, n * length)
        assert 0 < sum(rule.tail(length) for _ in range(n)) < 1.2 * MOST


def test_going_on_in_the_middle() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 2 * SHORT, 3 * MANY)
    for place in (0, 1, 777, 3 * MANY):
        whole, later = (Share(0.05, len(lengths), int(lengths.sum())) for _ in range(2))
        wanted = [whole.tail(int(x)) for x in lengths]
        later.skip(lengths[:place])
        assert [later.tail(int(x)) for x in lengths[place:]] == wanted[place:]


def test_validation_texts_are_held_out_whole() -> None:
    assert Everything().tail(12_345) == 12_345
    assert [*split(["ab\n", "c"], 4, 4)] == [(True, "ab\n"), (True, "c")]
