"""The lines of Python that the documents show, with a text and a machine of no size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reformer import ReformerLM

import reformer_cli as rc
from reformer_cli.workflows.evaluate_recall import evaluate_recall

SMALL = {"model.d_model": 16, "model.n_layers": 1, "model.d_head": 8, "data.context": 32, "train.batch_size": 2}
SMALL |= {"train.precision": "float32"}


def test_train_load_generate_stream_and_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(evaluate_recall.__kwdefaults__, "max_distance", 256)  # thousands are many seconds
    text = "She opened the door, and with it the window; every name that is bound frees another.\n" * 30
    Path("novel.txt").write_text(text)
    said: list[str] = []
    model = rc.train("novel.txt", steps=2, settings=SMALL, report=said.append)
    assert any("parameters" in line for line in said)
    assert any("finished: 2 steps" in line for line in said)
    asked = {"max_tokens": 20, "temperature": 0.8, "top_p": 0.9, "seed": 7}
    written = model.generate("She opened", **asked)
    assert isinstance(written, str)
    assert "".join(model.stream("She opened", **asked)) == written
    again = rc.load()
    assert again.path.resolve() == model.path.resolve()
    assert again.generate("She opened", **asked) == written
    samples = again.generate("She opened", num_samples=2, **asked)
    assert [len(one.tokens) == len(one.logprobs) <= 20 for one in samples] == [True, True]
    found = model.evaluate("novel.txt")
    assert 0 < found.bits_per_byte < 10
    assert found.as_dict()["bits_per_byte"] == found.rows()[0]["bits_per_byte"]
    assert "bits/byte" in str(found)
    model.evaluate("novel.txt", by_position=True).plot(Path("p.svg"))
    assert "<svg" in Path("p.svg").read_text()
    several = model.evaluate("novel.txt", tests=("context", "recall", "attention"))
    assert list(several) == ["context", "recall", "attention"]
    for result in several.values():
        assert isinstance(result, rc.Result)
        assert result.as_dict()
        assert result.rows()
        assert str(result)
    several["context"].plot("c.svg")
    assert "<svg" in Path("c.svg").read_text()
    with pytest.raises(rc.UserError, match="no known ending"):
        found.plot("p.jpeg2")
    with pytest.raises(ValueError, match="the test pass is not known"):
        model.evaluate("novel.txt", tests="pass")
    model.export("out")
    with pytest.raises(rc.UserError, match="not empty"):
        model.export("out")
    model.export("out", overwrite=True)
    assert ReformerLM.from_pretrained("out").config == model.model.config
    with pytest.raises(ValueError, match="surprise"):
        model.generate("a", surprise=1)
    with pytest.raises(rc.UserError):
        rc.load("nowhere")
    assert rc.train(resume=True, run=model.path, steps=3, report=said.append).path == model.path
    assert capsys.readouterr().out == ""


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, reformer_cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
