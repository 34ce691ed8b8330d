"""What is cut off texts of Project Gutenberg, and that it is no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders.reading import only, silent

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.gutenberg import START, cut_licence
from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.workflows.corpus import inspect_corpus

HEADER = "The Project Gutenberg EBook of A Title, by N. N.\n\nThis eBook is for the use of anyone\n\n"
BREAK = re.compile(r"\n\s*\n")


def paragraphs(text: str) -> list[str]:
    return [" ".join(block.split()) for block in BREAK.split(text.strip())]


def test_last_words_and_credits_go() -> None:
    """Bug guarded against: a model that was trained on such books ended its own with their last line."""
    text = (
        f"{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK A TITLE ***\n\n\n\nProduced by N. N. and the Online\n"
        "Distributed Proofreading Team at http://www.pgdp.net\n\n\nA TITLE\n\nProduced by the frost, it fell.\n"
        "The End of the story.\n\n\nEnd of the Project Gutenberg EBook of A Title, by N. N.\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK A TITLE ***\n\n***** This file should be named 1.txt *****\n"
    )
    cut: list[int] = []
    assert "".join(cut_licence([text], cut.append)) == (
        "A TITLE\n\nProduced by the frost, it fell.\nThe End of the story.\n"
    )
    assert sum(cut) > 300


def test_titles_that_wrap_and_books_under_copyright() -> None:
    for which in ("THE", "THIS COPYRIGHTED"):
        marker = f"OF {which} PROJECT GUTENBERG EBOOK A VERY LONG TITLE THAT\nGOES ON ***\n\n"
        text = f"{HEADER}*** START {marker}Text.\n\n*** END {marker}Licence words follow.\n"
        assert "".join(cut_licence([text])) == "Text.\n"


def test_an_etext_of_the_nineties() -> None:
    small = "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n\nYou may.\n\n"
    small += "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
    credit = "This etext was produced by N. N. <n@example.org>\n\n"
    last = "End of The Project Gutenberg Etext of A Title, by N. N.\n"
    assert "".join(cut_licence([f"{HEADER}{small}{credit}Text.\n\n\n{last}"])) == "Text.\n"


def test_the_last_words_of_a_volume_are_not_those_of_the_book() -> None:
    start = "*** START OF THE PROJECT GUTENBERG EBOOK A TITLE ***\n\n"
    volume = "One.\n\nEnd of the Project Gutenberg EBook of A Title, Volume 1\n\n" + "Two, and more of it.\n\n" * 300
    found = "".join(cut_licence([f"{HEADER}{start}{volume}Three.\n\n*** END OF THE PROJECT GUTENBERG EBOOK A ***\n"]))
    assert paragraphs(found) == ["One.", *["Two, and more of it."] * 300, "Three."]


@pytest.mark.parametrize("size", [13, 4096])
def test_pieces_make_no_difference(cases: Path, size: int) -> None:
    text = (cases / "pg_wrapped_title.txt").read_text("utf-8")
    assert "".join(cut_licence(text[n : n + size] for n in range(0, len(text), size))) == "Text.\n"
    assert only(cases / "pg_wrapped_title.txt") == "Text.\n"


def test_nothing_of_a_hundred_novels_is_lost(library: Path) -> None:
    """Each paragraph between the header and the last words stays, in order, but for those on the electronic copy."""
    files = sorted(library.glob("*.txt"))
    assert len(files) == 100
    mentions = 0
    for path in files:
        text = re.sub("\r\n?", "\n", path.read_bytes().decode("utf-8-sig"))
        found = "".join(cut_licence([text]))
        mentions += sum("gutenberg" in line.lower() for line in found.split("\n"))
        *_, start = START.finditer(text[: len(text) // 2])
        whole, kept = paragraphs(text[start.end() :]), paragraphs(found)
        end = max(n for n, block in enumerate(whole) if block == kept[-1])
        stays = set(kept)
        missing = [block for block in whole[: end + 1] if block not in stays]
        assert len(missing) <= 3, path.name
        assert all(re.search("by|prepared|Gutenberg|Internet Archive", block) for block in missing), missing
        assert [block for block in whole[: end + 1] if block in stays] == kept, path.name
        after = " ".join(whole[end + 1 :])
        assert re.match(r"(End of |\*\*\* ?END OF ).{0,10}Project Gutenberg", after, re.IGNORECASE), path.name
    assert mentions <= 5


def test_the_licence_of_an_old_etext_goes(library: Path) -> None:
    text = only(library / "james_highway.txt")
    assert text.startswith("THE KING'S HIGHWAY")
    assert text.endswith('with my whole heart!"\n')


def test_what_was_cut_is_counted(tmp_path: Path) -> None:
    text = f"{HEADER}*** START OF THE PROJECT GUTENBERG EBOOK A TITLE ***\n\nText.\n"
    (tmp_path / "a.txt").write_text(text)
    with scanned([str(tmp_path)], Options(), 1, silent) as found:
        assert found.cut == len(text) - len("Text.\n") - 2 + text.count("\n\n\n")
    assert "characters: Project Gutenberg's headers" in str(
        inspect_corpus([str(tmp_path)], DataConfig(), report=silent)
    )
