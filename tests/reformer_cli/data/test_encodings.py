"""Texts that are no UTF-8 are read where their encoding is plain, and asked about where it is not.

Guards against UTF-16 with a mark called binary, windows-1252 and KOI8-R answered with "try latin-1" (which is wrong for
both), and a DOS page read as another for certain, so that a model learns its garbage.
"""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
from builders.reading import faults, only, silent

from reformer_cli.data import text_decoding
from reformer_cli.data.encodings import SURE, codec_of, guess, out_of_place
from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError

GERMAN = "Der Müller hörte das Rauschen der Bäche und fühlte sich früh müde; größer war die Übung, schöner die Tür.\n"
FRENCH = "L’été dernier, ma sœur a été très fatiguée à la forêt ; ça ne l’empêchait guère de goûter le pâté.\n"
POLISH = "Zażółć gęślą jaźń; młody źrebak pędził przez łąkę, a ścieżka wiodła wśród brzóz ku wiosce.\n"
TURKISH = "Küçük çocuk ağacın altında oturdu, güneş ışığı yüzüne düştü; akşam olunca eve döndü, şarkı söyledi.\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. Всё смешалось.\n"
UKRAINIAN = "Як умру, то поховайте мене на могилі, серед степу широкого, на Вкраїні милій, щоб лани широкополі їй є.\n"
GREEK = "Η Αθήνα είναι μια παλιά πόλη, και οι άνθρωποι της αγαπούν τη θάλασσα όσο και τον ήλιο του καλοκαιριού.\n"
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。\n"
)
CHINESE = "此开卷第一回也。作者自云：因曾历过一番梦幻之后，故将真事隐去，而借通灵之说，撰此石头记一书也。\n"
TRADITIONAL = "話說天下大勢，分久必合，合久必分。周末七國分爭，并入於秦。及秦滅之後，楚漢分爭，又并入於漢。\n"
KOREAN = "나라의 말이 중국과 달라 문자와 서로 통하지 아니하므로 어리석은 백성이 이르고자 할 바가 있어도 못한다.\n"
LEGACY = [
    (GERMAN, "windows-1252"), (FRENCH, "windows-1252"), (POLISH, "windows-1250"), (POLISH, "iso-8859-2"),
    (TURKISH, "windows-1254"), (RUSSIAN, "koi8-r"), (RUSSIAN, "windows-1251"), (RUSSIAN, "cp866"),
    (RUSSIAN, "iso-8859-5"), (UKRAINIAN, "koi8-u"), (GREEK, "windows-1253"), (GREEK, "iso-8859-7"),
    (JAPANESE, "shift_jis"), (JAPANESE, "euc-jp"), (JAPANESE, "iso-2022-jp"), (CHINESE, "gb2312"),
    (CHINESE, "gb18030"), (TRADITIONAL, "big5"), (KOREAN, "euc-kr"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "encoding"), LEGACY, ids=[f"{e}-{t[:6]}" for t, e in LEGACY])
@pytest.mark.parametrize("times", [1, 40])
def test_legacy_pages_are_recognised(tmp_path: Path, text: str, encoding: str, times: int) -> None:
    """Also where a novel has only ASCII for longer than what is read at once."""
    (tmp_path / "t.txt").write_bytes((text * times).encode(encoding))
    assert only(tmp_path / "t.txt") == text * times
    if encoding != "iso-2022-jp":
        (tmp_path / "t.txt").write_bytes(b"0 1 2 3 4 5\n" * 30_000 + (text * times).encode(encoding))
        assert only(tmp_path / "t.txt") == "0 1 2 3 4 5\n" * 30_000 + text * times


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"]
)
@pytest.mark.parametrize("text", ["Plain words.\n", RUSSIAN, CHINESE, "😀 é\n"])
def test_wide_encodings_with_and_without_a_mark(tmp_path: Path, text: str, encoding: str) -> None:
    for packed in (False, True):
        data = (text * 3).replace("\n", "\r\n").encode(encoding)
        path = tmp_path / ("t.txt.gz" if packed else "t.txt")
        path.write_bytes(gzip.compress(data) if packed else data)
        assert only(path) == text * 3


@pytest.mark.parametrize(
    ("text", "encoding"), [(GERMAN, "cp850"), (RUSSIAN, "mac-cyrillic"), (GREEK, "cp737"), (FRENCH, "mac-roman")]
)
def test_what_is_not_sure_is_asked_about_in_one_line(tmp_path: Path, text: str, encoding: str) -> None:
    """Pages that no browser knows can be read as others, with characters where none of their kind stand."""
    (tmp_path / "t.txt").write_bytes((text * 10).encode(encoding))
    (fault,) = faults(tmp_path)
    assert "is not utf-8: byte" in fault
    assert "add --encoding" in fault or "give its --encoding" in fault
    assert "\n" not in fault
    assert only(tmp_path / "t.txt", encoding=encoding) == text * 10


def test_one_or_two_odd_characters_are_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"An English caf\xe9.\n")
    assert "if it is windows-1252 (50% sure), add --encoding windows-1252" in faults(tmp_path)[0]
    (tmp_path / "t.txt").write_bytes(b"A na\xefve fianc\xe9e in a caf\xe9.\n")
    assert only(tmp_path / "t.txt") == "A naïve fiancée in a café.\n"


def test_damaged_utf8_is_no_legacy_page(tmp_path: Path) -> None:
    """A letter cut in half among whole ones is a fault of the file, and not to be read as "Ã"."""
    (tmp_path / "t.txt").write_bytes(GERMAN.encode() + b"f\xc3r\n" + GERMAN.encode() * 5)
    assert "t.txt is not utf-8: byte" in faults(tmp_path)[0]
    (tmp_path / "t.txt").write_bytes(b"\xff" + GERMAN.encode())
    assert "t.txt is not utf-8: byte 0" in faults(tmp_path)[0]


def test_what_windows_pages_leave_undefined_is_a_control_as_in_browsers(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<meta charset=windows-1252><p>a\x81b\x9dc\xe9")
    assert only(tmp_path / "a.html") == "a\x81b\x9dcé\n"
    (tmp_path / "a.html").write_bytes(b"<meta charset=windows-1253><p>a\xd2")  # which the standard refuses
    assert "0xd2" in faults(tmp_path)[0]


def test_pages_that_declare_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<p>" + (RUSSIAN * 3).encode("koi8-r"))
    assert only(tmp_path / "a.html") == (RUSSIAN * 3).replace("\n", " ") + "\n"


def test_confidence_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((RUSSIAN * 3).encode("koi8-r"))
    (tmp_path / "b.txt").write_bytes(b"A na\xefve fianc\xe9e in a caf\xe9.\n")
    (tmp_path / "c.txt").write_bytes((GERMAN * 99).encode("cp1252"))
    (tmp_path / "d.txt").write_text(GERMAN, "utf-8")
    with scanned([str(tmp_path)], Options(), 1, silent) as found:
        assert found.encodings["koi8-r"][0] == 1
        files, sure, which = found.encodings["windows-1252"]
        assert (files, sure, which) == (2, 0.75, str(tmp_path / "b.txt"))
        assert found.encodings.keys() == {"koi8-r", "windows-1252"}


@pytest.mark.parametrize(
    "name", ["klingon", "punycode", "idna", "undefined", "unicode_escape", "hex", "rot13", "a\0b", ""]
)
def test_what_is_no_encoding_of_text_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("text", "utf-8")
    with pytest.raises(UserError, match="unknown encoding"):
        only(tmp_path / "a.txt", encoding=name)


def test_labels_are_those_of_browsers() -> None:
    assert [codec_of(name) for name in ("gb2312", "Shift_JIS", "windows-874")] == ["gb18030", "cp932", "cp874"]


def test_binary_is_no_text(tmp_path: Path) -> None:
    for data in (
        bytes(range(256)) * 40,
        b"\x7fELF\2\1\1\0" * 9,
        b"abc\0def" * 99,
    ):
        (tmp_path / "t.txt").write_bytes(data)
        assert "looks binary" in faults(tmp_path)[0]


def test_places_are_judged_by_their_neighbours() -> None:
    assert out_of_place("naïve “café” — L’été, größer; Ёлка, в саду; 猫である")[0] == 0
    assert out_of_place("th‚ƒtre")[0] > 0
    assert out_of_place("чАС пРИВЕТ")[0] == 2
    assert out_of_place("cafИ")[0] == 1
    found = guess(b"caf\xe9")
    assert found is not None
    assert found.confidence < SURE


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_decoding, "BLOCK", 2**14)
    peaks = []
    for times in (3_000, 9_000):
        (tmp_path / "t.txt").write_bytes((RUSSIAN * times).encode("koi8-r"))
        tracemalloc.start()
        with scanned([str(tmp_path)], Options(), 1, silent) as found:
            assert found.characters == len(RUSSIAN) * times
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 2**16
