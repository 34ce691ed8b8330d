"""Texts as people have them, from the file to what a model writes: old line ends, a genome, many scripts, code.

Guards against a text of which no line was found because its lines end in CR, a genome in tokens of half a byte, Chinese
whose characters were spelt out, half a character on the screen, one text that scores otherwise as a page and as rows.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest
from builders.programs import TINY, Program

from reformer_cli.runs.run import Run
from reformer_cli.sampling.text_stream import TextStream
from reformer_cli.tokenizers.base import ByteTokenizer, Ids, Tokenizer

SCRIPTS = {
    "thai": "กาลครั้งหนึ่งนานมาแล้วมีเจ้าหญิงองค์หนึ่งอยู่ในปราสาทบนภูเขาสูง",
    "arabic": "كان يا ما كان في قديم الزمان، مَلِكٌ عادِلٌ يَحكُمُ بلادًا بعيدة.",
    "hebrew": "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ",
    "marks": "Vie\u0302\u0323t Nam cafe\u0301 na\u0308i\u0308ve Z\u0351\u0343\u0306algo",
    "emoji": "👩‍👩‍👧‍👦 went 🏳️‍🌈 to 🇯🇵 and 👍🏽 ❤️‍🔥 again",
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
}


def prose(paragraphs: int) -> str:
    draw = random.Random(0)
    names, verbs, places = ["Anna", "Boris", "Clara"], ["ran", "slept", "wept"], ["river", "house", "bridge"]

    def sentence() -> str:
        return f"{draw.choice(names)} {draw.choice(verbs)} in the {draw.choice(places)}."

    return "\n\n".join(" ".join(sentence() for _ in range(5)) for _ in range(paragraphs)) + "\n"


def train(reformer: Program, text: str, *options: object) -> str:
    """What is said while a tiny model is trained on a text, by the name of run `r`."""
    Path("t.txt").write_text(text, "utf-8", newline="")
    found = reformer("train", "t.txt", "--run", "r", *TINY, *(options or ("--steps", 3)))
    assert found.status == 0, found.err
    return found.err


def test_lines_that_end_in_cr_are_lines(reformer: Program) -> None:
    told = []
    for end in ("\n", "\r", "\r\n", "\r\r\n"):
        (path := Path(f"{len(told)}.txt")).write_bytes(prose(150).replace("\n", end).encode())
        found = json.loads(reformer("corpus", path, "--json").out)
        told.append((found["digest"], found["characters"], found["words"]))
    assert len({*told}) == 1


def test_a_genome_is_bytes_without_lines(reformer: Program) -> None:
    """One endless line trains, is gone on from, and is scored as it is."""
    genome = "".join(random.Random(1).choices("ACGT", k=60_000))
    told = train(reformer, genome)
    assert "a token is a byte" in told
    assert "it has no lines" in told
    assert "(1.00 bytes each)" in told
    assert Run.open(Path("r")).tokenizer().kind == "bytes"
    assert reformer("generate", "--run", "r", "--prompt", "ACGT", "--max-tokens", 9).out.startswith("ACGT")
    Path("t.txt").write_text(genome[:3_000])
    scored = json.loads(reformer("evaluate", "perplexity", "--run", "r", "t.txt", "--json").out)
    assert scored["tokens"] == scored["bytes"] == 3_000


def test_chinese_has_a_token_for_each_frequent_character(reformer: Program) -> None:
    draw = random.Random(2)
    characters = [chr(0x4E00 + 7 * n) for n in range(2_600)]
    weights = [1 / (n + 1) for n in range(2_600)]
    lines = ("".join(draw.choices(characters, weights, k=draw.randint(5, 30))) for _ in range(4_000))
    told = train(reformer, "\n".join(lines) + "\n")
    (size,) = re.findall(r"\(([\d.]+) bytes each\)", told)
    assert float(size) > 1.2  # 0.83 with a vocabulary that lacks them
    made = reformer("generate", "--run", "r", "--prompt", characters[0], "--max-tokens", 40).out
    assert made.startswith(characters[0])


def generate_after(tokenizer: Tokenizer, ids: Ids) -> Iterator[str]:
    """What a screen is shown of tokens of which the last ones are cut off and come in a later session."""
    for cut in range(len(ids)):
        first, second = TextStream(tokenizer.stream()), TextStream(tokenizer.stream())
        shown = "".join(first.push(int(n)) for n in ids[:cut]) + first.finish()
        second.resume([int(n) for n in ids[:cut]], first.shown)
        rest = "".join(second.push(int(n)) for n in ids[cut:]) + second.finish()
        assert "\ufffd" not in shown + rest
    yield from (shown, rest)


def test_bytes_that_never_become_a_character_are_not_shown() -> None:
    """A byte-level model draws them in its first minutes, and the screen was full of U+FFFD."""
    stream = TextStream(ByteTokenizer().stream())
    drawn = [*"é".encode(), *"é".encode()[:1], *b"a", 0xFF, *"漢".encode()[:2], *"\ufffd".encode(), *"漢".encode()[:2]]
    assert "".join(map(stream.push, drawn)) + stream.finish() == "éa\ufffd"  # the last: one that was drawn as such


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_many_scripts_are_lossless_and_never_half_a_character(reformer: Program, tokenizer: str) -> None:
    """Whatever the tokens end in; and where they are looked at one by one, a character is shown whole."""
    text = "\n".join(SCRIPTS.values()) + "\n"
    train(reformer, text * 20, "--steps", 1, "--set", f"tokenizer={tokenizer}")
    found = Run.open(Path("r")).tokenizer()
    for script in SCRIPTS.values():
        ids = found.encode(script)
        assert found.decode(ids) == script
        stream = found.stream()
        shown = [stream.push(int(n)) for n in ids]
        assert "".join(shown) == script
        for n in range(len(ids) + 1):
            assert script.startswith("".join(shown[:n]))
        assert "".join(generate_after(found, ids)) == script
    assert "\ufffd" not in reformer("evaluate", "attention", "--run", "r", "t.txt").out


def test_the_same_text_three_ways(reformer: Program) -> None:
    """As plain text, as a page and as rows: the same characters, tokens and bits."""
    text = prose(20)
    train(reformer, text * 30)
    paragraphs = text.strip().split("\n\n")
    Path("prose.txt").write_text(text, "utf-8")
    Path("page.html").write_text("<title>x</title>" + "".join(f"<p>{escape(p)}</p>" for p in paragraphs), "utf-8")
    Path("rows.jsonl").write_text("".join(json.dumps({"text": p}) + "\n" for p in paragraphs), "utf-8")
    scores = []
    for name in ("prose.txt", "page.html", "rows.jsonl"):
        evaluated = reformer("evaluate", "perplexity", "--run", "r", name, "--json")
        assert re.search(rf"(9\d|100)% of {name} stands in what r was trained on", evaluated.err)
        found = json.loads(evaluated.out)
        scores.append([found[key] for key in ("tokens", "bytes", "characters", "words", "bits_per_byte")])
    assert scores[0] == scores[1] == scores[2]
    words = {
        json.loads(reformer("corpus", name, "--json").out)["words"] for name in ("prose.txt", "page.html", "rows.jsonl")
    }
    assert words == {scores[0][3]}
    Path("other.txt").write_text("Nobody has written this before. " * 30 + SCRIPTS["thai"], "utf-8")
    assert "trained on" not in reformer("evaluate", "perplexity", "--run", "r", "other.txt").err


def test_code_is_gone_on_with_and_no_line_is_said_again_and_again(reformer: Program) -> None:
    code = "".join(f"def f{n}(x):\n    y = x + {n}\n\n    return y\n\n\n" for n in range(1_000))
    sizes = ("d_model=48", "n_layers=1", "d_head=12", "context=96", "batch_size=8", "learning_rate=6e-3")
    train(reformer, code, *(part for size in sizes for part in ("--set", size)), "--steps", 120)
    for seed in (0, 1):
        out = reformer("generate", "--run", "r", "--prompt", "def f", "--max-tokens", 120, "--seed", seed).out
        lines = [line for line in out.splitlines()[:-1] if line.strip()]
        assert len(lines) >= 4
        assert max(map(lines.count, lines)) <= len(lines) / 2, out
