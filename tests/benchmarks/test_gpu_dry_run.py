"""benchmarks/gpu.py cannot be tried where it is written: what of it needs no GPU runs here, at tiny sizes."""

from __future__ import annotations

import csv
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_parts

    return gpu_parts


def test_every_part_finds_something(
    parts: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu

    for system in parts.SYSTEMS.values():
        monkeypatch.setattr(system, "__defaults__", (2,))  # layers

    results = tmp_path / "results.csv"
    for part in parts.PARTS:
        bench = parts.Bench("cpu", [256], [16], time.perf_counter() + 300, least=0)
        gpu.measure(part, bench, results)
    rows = list(csv.DictReader(results.open()))
    found = {(r["benchmark"], r["system"], r["measure"]) for r in rows}
    for benchmark, system, measure in (
        ("gpu machine", "machine", "copy"),
        ("gpu train", "reformer", "forecast"), ("gpu update", "reformer", "update, speed"),
        ("gpu kernel", "FlexAttention", "forward"),
        ("gpu layer", "full attention", "speed"), ("gpu step", "reformer", "speed"),
        ("gpu step", "transformers", "speed"), ("gpu decode", "reformer", "token"),
    ):  # fmt: skip
        assert (benchmark, system, measure) in found
    assert all(float(r["value"]) > 0 for r in rows)
    printed = capsys.readouterr().out
    for line in printed.splitlines():  # what failed is only what is not installed
        assert "Error" not in line or "No module named 'reformer_pytorch'" in line, line


def test_a_picture_of_what_was_found(parts: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu
    import record

    record.RESULTS = tmp_path / "results.csv"
    for system, speed in (("reformer", 4e6), ("full attention", 1e5)):
        record.append("cpu", "gpu step", [(system, f"{n} tokens", "speed", speed, "tokens/s") for n in (4096, 65536)])
    gpu.draw(record.RESULTS, tmp_path / "gpu.png")
    if find_spec("matplotlib") is None:
        assert "matplotlib is not installed" in capsys.readouterr().err
    else:
        assert (tmp_path / "gpu.png").read_bytes()[:4] == b"\x89PNG"


def test_flex_attention_is_given_the_same_pattern(parts: ModuleType) -> None:
    # A comparison with another pattern would compare nothing.
    from gpu_attention import HEADS, _layout, _rows, flex
    from reformer.ops.bucket_attention import pytorch

    layout = _layout(300, 40, "cpu")
    k, v, _ = (x.float() for x in _rows(300, "cpu"))
    mask, attend = flex(layout, "cpu")
    wanted = pytorch.forward_pass(k, k, v, layout, HEADS)[0]
    assert (attend(k, v, mask()) - wanted).abs().max() < 1e-5


def test_attention_alone_is_both_passes_of_a_layer(parts: ModuleType) -> None:
    # It used to time kernels that training on a GPU no longer takes.
    from gpu_attention import KINDS, passes

    for kind in KINDS:
        for work, moved in passes(kind, 80, 16, "cpu").values():
            assert work() is not None
            assert all(x.numel() for x in moved)


def test_what_does_not_fit_the_time_is_left_out(parts: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench = parts.Bench("cpu", [256], [16], time.perf_counter() + 100)
    bench.taken["full attention"] = (1024, 10.0)
    assert bench.fits("full attention", 2048, 2)
    assert not bench.fits("full attention", 4096, 2)
    assert bench.tried("full attention", "4096 tokens", 4096, 2, lambda: 1 / 0) == []
    assert "left out, no time" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu

    if torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="there is no GPU here; --dry-run goes through it on a CPU"):
        gpu.main()


def test_every_case_has_a_part_and_what_is_wanted_most_comes_first(parts: ModuleType) -> None:
    # Peers used to be measured while the rows that were wanted were left out "for want of time".
    assert {part for part, _, _ in parts.CASES} == set(parts.PARTS)
    systems = [system for _, system, _ in parts.CASES]
    assert systems.index("transformers") > max(n for n, system in enumerate(systems) if system == "reformer")


def test_compiling_is_not_taken_for_the_measurement(parts: ModuleType) -> None:
    bench, calls = parts.Bench("cpu", [256], [16], time.perf_counter() + 100, least=0), []

    def work() -> None:
        calls.append(0)
        time.sleep(0.2 if len(calls) == 1 else 0)

    bench.tried("reformer", "4096 tokens", 4096, 1, lambda: [("", "", "", bench.seconds(work), "s")])
    assert bench.taken["reformer"][1] < 0.1
