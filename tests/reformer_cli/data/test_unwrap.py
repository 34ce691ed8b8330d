"""Lines of paragraphs joined, and those of nothing else.

Guards against what joining by a rule of thumb does to texts as people have them: poems made into prose, contents and
code run together, `well- known`, headings of letters swallowed, paragraphs without blank lines between them glued, and
another text where it comes in other pieces.
"""

from __future__ import annotations

import json
import random
import re
import textwrap
from pathlib import Path

import pytest
from builders.programs import TINY, Program
from builders.reading import silent

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import unwrap as module
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.unwrap import unwrap

WORDS = ["the", "of", "and", "was", "well-known", "garden,", "Alice", "he", "said;", "when", "I", "could", "not"]
WORDS += ["evening", "every", "under", "window.", "It", "long"]


def paragraphs(n: int = 30, seed: int = 1, words: int = 90) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(8, words))).capitalize() + "." for _ in range(n)]


def wrapped(texts: list[str], between: str = "\n\n", width: int = 70, **how: str) -> str:
    return between.join("\n".join(textwrap.wrap(t, width, break_on_hyphens=False, **how)) for t in texts) + "\n"  # type: ignore[call-overload]


def joined(text: str) -> str:
    return "".join(unwrap([text]))


PROSE = paragraphs()
POEM = """\
  The Owl and the Pussy-cat went to sea
    In a beautiful pea-green boat:
  They took some honey, and plenty of money
    Wrapped up in a five-pound note."""
LONG_LINES = """\
Once upon a midnight dreary, while I pondered, weak and weary, all alone,
Over many a quaint and curious volume of forgotten lore, as I recall,
While I nodded, nearly napping, suddenly there came a tapping,
As of some one gently rapping, rapping at my chamber door in the fall.
Ah, distinctly I remember it was in the bleak December."""
KEPT = {
    "a poem": POEM,
    "verse of long lines": LONG_LINES,
    "couplets, not indented": "Then came the king, whose ships had gone before the autumn rains,\n"
    "And all the fields lay bare that once had borne the summer's grains.\n\n"
    "So ends the song that Anna sang beside the river in the night,\n"
    "And none who heard it ever told how far she went by light.",
    "contents": "CONTENTS\n\nI. The Garden of the Old House and What Was Found in It .......... 1\n"
    "II. The Window, and Who Looked Out of It on That Evening ......... 23\n"
    "III. The End of All of That ...................................... 41",
    "a table": "Packet of notepaper and of envelopes      one shilling      0   0   2\n"
    "Dinner and gratification of the waiter    two shillings     0   2   0\n"
    "Postal order and the stamp upon it        two and eight     0   2   8",
    "a letter's heading": "14, Baker Street,\nLondon, 3rd of May.\n\nMy dear Sir,",
    "a signature": "I have the honour to be,\n      Sir, your most obedient servant,\n                JOHN SMITH.",
    "code": "def read(path):\n    with open(path) as file:\n        return [line.strip() for line in file]\n\n\n"
    "for name in names:\n    print(name)",
    "fenced code": "```\nthis line of the listing is as long as the lines of the paragraphs\n"
    "and this one as well, and goes on in lower case, as it happens, too\n```",
    "a list": "- the first thing that is to be bought at the market on this evening;\n"
    "- the second thing, which is a good deal longer than the first one was;\n- the third.",
    "a play": "KATE. Well, I could never have believed it of you, not in a hundred years!\n"
    "TOM. And I would never have asked you to, though you may well think so.\nKATE. Oh.",
    "answers": "“And what could he have said to that, when every window was under it?”\n“Nothing at all.”",
    "an epigraph": "     Look on the field, and say how goes the battle of the morning there.\n     --Schiller's Maid",
}


@pytest.mark.parametrize("kind", KEPT)
def test_only_prose_is_joined(kind: str) -> None:
    text = wrapped(PROSE[:15]) + "\n" + KEPT[kind] + "\n\n" + wrapped(PROSE[15:])
    expected = "\n\n".join(PROSE[:15]) + "\n\n" + KEPT[kind] + "\n\n" + "\n\n".join(PROSE[15:]) + "\n"
    assert joined(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "\n\n".join([POEM] * 40),
        "\n\n".join([LONG_LINES] * 40),
        "\n\n".join(PROSE),  # a paragraph a line
        Path(module.__file__).read_text("utf-8").split('"""')[2],
        "\n".join(["ACGT" * 15] * 200),
        "\n".join(["acgt" * 15] * 200),
        "\n".join(f"2024-01-{n % 28 + 1:02d} 12:00:00 the server said that all is well with it" for n in range(200)),
        "\n".join(f"{n},{n * n},a name,another one" for n in range(300)),
        "Anna\nBertha\nCecilia\nDora\n" * 50,
        "x" * 300_000 + "\n" + "y" * 300_000,
        "",
        "\n\n\n",
        "a",
    ],
    ids=["verse", "long", "joined", "code", "DNA", "dna", "log", "csv", "names", "endless", "none", "blank", "a"],
)
def test_what_is_not_wrapped_stays_as_it_is(text: str) -> None:
    counts: list[int] = []
    assert "".join(unwrap([text], counts.append)) == text
    assert sum(counts) == 0


@pytest.mark.parametrize("width", [45, 60, 72, 100])
def test_paragraphs_with_blank_lines_with_indents_and_with_neither(width: int) -> None:
    assert joined(wrapped(PROSE, width=width)) == "\n\n".join(PROSE) + "\n"
    indented = wrapped(PROSE, "\n", width, initial_indent="  ")
    assert joined(indented) == "\n".join("  " + p for p in PROSE) + "\n"
    found = joined(wrapped(PROSE, "\n", width)).splitlines()
    assert 0.8 * len(PROSE) <= len(found) <= len(PROSE)  # one whose last line is full looks as if it went on
    quoted = wrapped(PROSE[:9]) + "\n" + textwrap.indent(wrapped(PROSE[9:12], width=60), "    ")
    assert joined(quoted) == "\n\n".join([*PROSE[:9], *("    " + p for p in PROSE[9:12])]) + "\n"


@pytest.mark.parametrize(
    ("end", "begin", "expected"),
    [
        ("well-", "known", "well-known"),
        ("said--", "and", "said--and"),
        ("said\u2014", "and", "said\u2014and"),
        ("said -", "and", "said - and"),
        ("said \u2014", "and", "said \u2014 and"),
        ("said", "--and", "said--and"),
        ("_very", "much_ so", "_very much_ so"),
        ("_much_", "_more_ so", "_much_ _more_ so"),
        ("vol\u00ad", "ume", "vol\u00adume"),
        ("end.", "It", "end. It"),
        ("he said:", "\u201cYes", "he said: \u201cYes"),
    ],
)
def test_what_stands_between_joined_lines(end: str, begin: str, expected: str) -> None:
    fill = "x" * (67 - len(end))
    text = wrapped(PROSE) + f"\nWe {fill} {end}\n{begin} then we went home.\n"
    assert joined(text).endswith(f"{fill} {expected} then we went home.\n")


def test_scripts_without_spaces_get_none() -> None:
    draw = random.Random(2)
    texts = ["".join(chr(draw.randint(0x4E00, 0x9F00)) for _ in range(draw.randint(30, 200))) + "。" for _ in range(20)]
    text = "\n\n".join("\n".join(t[n : n + 35] for n in range(0, len(t), 35)) for t in texts)
    assert joined(text) == "\n\n".join(texts)
    poem = "\n".join(t[:20] + "，" for t in texts)
    assert joined(poem) == poem


def test_the_same_however_the_text_comes_and_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 5000)
    for between in ("\n\n", "\n"):  # blocks end at a blank line, or at any
        text = wrapped(paragraphs(80), between) + "z" * 20_000 + "\n" + wrapped(paragraphs(20, 3))
        whole: list[int] = []
        expected = "".join(unwrap([text], whole.append))
        assert re.sub(r"\s+", "", expected) == re.sub(r"\s+", "", text)
        assert sum(whole) == text.count("\n") - expected.count("\n") > 300
        for size in (1, 7, 999, 6000):
            counts: list[int] = []
            pieces = [text[n : n + size] for n in range(0, len(text), size)]
            assert "".join(unwrap(pieces, counts.append)) == expected
            assert "".join(unwrap(pieces, counts.append, join=False)) == text
            assert counts == whole + whole
        assert max(map(len, unwrap(iter(text)))) <= 10_000  # memory is bounded


def test_a_setting_for_the_corpus_and_all_that_a_run_reads(reformer: Program, tmp_path: Path) -> None:
    hard, soft = tmp_path / "hard.txt", tmp_path / "soft.txt"
    hard.write_text(wrapped(PROSE[:4]), "utf-8")
    soft.write_text("\n\n".join(PROSE[:4]) + "\n", "utf-8")
    lines = hard.read_text().count("\n") - soft.read_text().count("\n")
    found = reformer("corpus", hard).out
    assert f"{lines:,}  within paragraphs, that --set data.unwrap=join would join" in found
    assert "hard lines" not in reformer("corpus", soft).out
    assert "hard lines" not in reformer("corpus", hard, "--set", "unwrap=keep").out
    assert "paragraphs, joined" in reformer("corpus", hard, "--set", "unwrap=join").out

    def digest(name: Path, **how: str) -> str:
        return open_dataset(DataConfig(corpus=(str(name),), tokenizer="bytes", **how), silent).digest  # type: ignore[arg-type]

    assert digest(hard, unwrap="join") == digest(soft) != digest(hard) == digest(hard, unwrap="keep")
    train = [
        "train",
        hard,
        *TINY,
        "--steps",
        "1",
        "--device",
        "cpu",
        "--set",
        "tokenizer=bytes",
        "--set",
        "unwrap=join",
    ]
    assert reformer(*train, "--run", "r").status == 0
    scored = reformer("evaluate", "perplexity", "--run", "r", hard, "--json").out
    assert "joined into paragraphs" in scored
    assert f'"bytes": {soft.stat().st_size},' in scored
    generate = ["generate", "--run", "r", "--prompt-file", hard, "--max-tokens", "1", "--json"]
    assert json.loads(reformer(*generate).out)["prompt"] == soft.read_text("utf-8")
    config = Path("r/config.yaml")
    config.write_text(config.read_text("utf-8").replace("unwrap: join", "unwrap: keep"), "utf-8")
    assert json.loads(reformer(*generate).out)["prompt"] == hard.read_text("utf-8")
