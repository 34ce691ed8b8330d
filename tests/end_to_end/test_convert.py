"""`import`, `export` and `train --from`, as a user runs them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from builders import forked
from builders.programs import Kept, Program
from builders.transformers_folders import LEFT_OVER, edit_config, make_model, save, transformers
from safetensors.torch import load_file

from reformer_cli.convert.model_card import LOAD
from reformer_cli.runs.run import Run


@pytest.fixture
def there(tmp_path: Path, kept: Kept) -> Path:
    """A folder as the hub has it, of 128 positions."""
    return kept("there", lambda: save(make_model(1), tmp_path / "there", pickled=True, old=True))


@pytest.fixture
def imported(reformer: Program, there: Path, tmp_path: Path, kept: Kept) -> Path:
    def bring() -> None:
        result = reformer("import", there, "--run", tmp_path / "in")
        assert result.status == 0, result.err

    return kept("in", bring)


def test_an_imported_model_generates_and_is_scored(reformer: Program, imported: Path, text: Path) -> None:
    made = reformer("generate", "--run", imported, "--prompt", "the cat", "--max-tokens", 100, "--seed", 3)
    assert made.status == 0, made.err
    assert made.out.startswith("the cat")
    assert (
        made.out == reformer("generate", "--run", imported, "--prompt", "the cat", "--max-tokens", 100, "--seed", 3).out
    )
    scored = reformer("evaluate", "perplexity", text, "--run", imported, "--context", 128, "--json")
    assert math.isfinite(json.loads(scored.out)["nats_per_token"])
    assert "the tokenizer loses" in scored.err
    assert "500 line breaks" in scored.err
    too_long = reformer("generate", "--run", imported, "--max-tokens", 129)
    assert "exceed the 128 positions of this model" in too_long.error


def test_what_has_no_counterpart_is_told(reformer: Program, there: Path) -> None:
    edit_config(there, hash_seed=None, lsh_attention_probs_dropout_prob=0.1)
    result = reformer("import", there, "--run", "r")
    assert result.status == 0
    assert "note: hash_seed is not set" in result.err
    assert "note: lsh_attention_probs_dropout_prob 0.1" in result.err
    assert "note: spiece.model loses what it does not know" in result.err
    assert set(LEFT_OVER) <= set(json.loads((there / "config.json").read_text()))


def test_perplexity_is_that_of_transformers(reformer: Program, imported: Path, tmp_path: Path) -> None:
    """An export of an import, opened there: one pass over one text."""
    assert reformer("export", imported, "out", "--format", "transformers").status == 0
    text = "The with statement is used to wrap the execution of a block."
    (tmp_path / "s.txt").write_text(text)
    scored = reformer("evaluate", "perplexity", "s.txt", "--run", imported, "--json")
    ours = json.loads(scored.out)
    model = transformers.AutoModelForCausalLM.from_pretrained("out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
    with torch.random.fork_rng(), torch.no_grad():
        logits = model(ids[:, :-1]).logits[0]  # the last token, were it read, would move chunks
    theirs = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
    assert ours["tokens"] == ids.shape[1] - 1
    assert ours["nats_per_token"] == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("form", ["transformers", "safetensors", "state-dict"])
def test_the_cards_code_loads_the_export(form: str, reformer: Program, imported: Path, tmp_path: Path) -> None:
    assert reformer("export", imported, "out", "--format", form, "--license", "mit").status == 0
    assert "license: mit" in Path("out/README.md").read_text()
    code = LOAD[form].replace("FOLDER", str(tmp_path / "out"))
    code += "\nimport torch\ntorch.save(dict(model.named_parameters()), 'again.pt')"
    process = forked.start(forked.code, code, cwd=tmp_path)
    assert process.wait() == 0, process.err
    found = torch.load("again.pt", weights_only=True)
    name = "reformer.embeddings.word_embeddings.weight" if form == "transformers" else "embedding"
    assert torch.equal(found[name], load_file(imported / "model.safetensors")["embedding"])


def test_a_safetensors_export_is_a_run_too(reformer: Program, run: Path, text: Path) -> None:
    assert reformer("export", run, "out").status == 0  # the default suits every model
    one, other = (reformer("evaluate", "perplexity", text, "--run", r, "--json").out for r in (run, "out"))
    assert one == other


def test_export_says_all_that_stands_against_it(reformer: Program, run: Path) -> None:
    result = reformer("export", run, "out", "--format", "transformers")
    assert result.status == 2
    for part in ("attn_layers mixed", "block_style modern", "positions rotary"):
        assert part in result.err
    assert not Path("out").exists()


def test_fine_tuning_an_import(reformer: Program, imported: Path, text: Path) -> None:
    """It begins with those weights and tokenizer, at a quarter of the step size, and the loss falls from there."""
    result = reformer(
        "train",
        text,
        "--from",
        imported,
        "--steps",
        70,
        "--run",
        "tuned",
        "--set",
        "context=64",
        "--set",
        "batch_size=2",
    )
    assert result.status == 0, result.err
    assert "keep what" in result.err
    assert "weight_decay = " not in result.err  # as fast as for a new model, it would take away what was learnt
    assert Path("tuned/tokenizer.model").read_bytes() == (imported / "tokenizer.model").read_bytes()
    assert json.loads(Path("tuned/origin.json").read_text()) == {"kind": "run", "name": str(imported)}
    losses = [x["loss"] for x in map(json.loads, Path("tuned/metrics.jsonl").read_text().splitlines()) if "loss" in x]
    assert losses[-1] < losses[0]
    begun = reformer(
        "train",
        text,
        "--from",
        imported,
        "--steps",
        1,
        "--run",
        "same",
        "--set",
        "learning_rate=1e-9",
        "--set",
        "context=64",
        "--set",
        "batch_size=1",
    )
    assert begun.status == 0
    old, new = (load_file(r / "model.safetensors") for r in (imported, Path("same")))
    assert all((t - new[name]).abs().max() < 1e-6 for name, t in old.items())
    # and its run resumes like any other
    assert reformer("train", "--resume", "--run", "tuned", "--steps", 72).status == 0


def test_fine_tuning_with_a_longer_context(reformer: Program, imported: Path, text: Path) -> None:
    sets = ["--set", "axial_shape=[32,16]", "--set", "context=512", "--set", "batch_size=1"]
    result = reformer("train", text, "--from", imported, "--steps", 2, "--run", "longer", *sets)
    assert result.status == 0, result.err
    made = reformer("generate", "--run", "longer", "--prompt", "the", "--max-tokens", 300)
    assert made.status == 0, made.err
    old, new = (load_file(r / "model.safetensors") for r in (imported, Path("longer")))
    assert new["axial.tables.0"].shape == (32, 8)
    assert torch.equal(new["axial.tables.0"][:8] != 0, old["axial.tables.0"] != 0)
    # without positions there is no limit at all
    sets = ["--set", "positions=none", "--set", "context=1024", "--set", "batch_size=1"]
    assert reformer("train", text, "--from", imported, "--steps", 1, "--run", "free", *sets).status == 0


def test_keys_of_more_tokens_begin_as_they_were(reformer: Program, text: Path) -> None:
    """What the new tokens add to a key starts at nothing: else all that a run's LSH heads had learnt would be lost."""
    sets = [
        "--set",
        "context=64",
        "--set",
        "batch_size=1",
        "--set",
        "d_model=16",
        "--set",
        "n_layers=1",
        "--set",
        "d_head=8",
    ]
    assert reformer("train", text, *sets, "--set", "lsh_key_conv=1", "--steps", 3, "--run", "one").status == 0
    still = ["--set", "learning_rate=1e-9", "--set", "context=64", "--set", "batch_size=1", "--set", "optimizer=adamw"]
    result = reformer("train", text, "--from", "one", *still, "--set", "lsh_key_conv=3", "--steps", 1, "--run", "three")
    assert result.status == 0, result.err
    models = [Run.open(Path(name)).load_model() for name in ("one", "three")]
    tokens = torch.arange(60)[None] % models[0].config.vocab_size
    # The mean that vectors are hashed about follows the text at each step; a vector between two buckets would change.
    means = {name: mean for name, mean in models[0].named_buffers() if name.endswith("hash_mean")}
    models[1].load_state_dict(means, strict=False)
    with torch.no_grad():
        one, three = (model(tokens) for model in models)
    assert (one - three).abs().max() < 1e-4
    back = reformer("train", text, "--from", "three", *still, "--set", "lsh_key_conv=1", "--steps", 1, "--run", "x")
    assert "key_conv is" in back.err
    assert back.status == 2


def test_a_run_of_ours_goes_on_with_another_text(reformer: Program, run: Path, text: Path) -> None:
    result = reformer(
        "train", text, "--from", run, "--steps", 2, "--run", "other", "--set", "context=64", "--set", "batch_size=1"
    )
    assert result.status == 0, result.err


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["d_model=48"], ["embedding is [320, 24] in", "[320, 48] with these settings", "axial_dims"]),
        (["data.vocab_size=500"], ["brings its tokenizer (sentencepiece, 320 ids)", "leave out data.vocab_size"]),
        (["axial_shape=[8,32]"], ["axial.tables.1 is [16, 16] in", "[32, 16]", "only the first axis"]),
        (["context=256"], ["data.context: 256 tokens exceed the 128 positions", "model.positions: none", "[16, 16]"]),
        (["n_layers=3"], ["layers.2.0.project.weight is not in"]),
    ],
    ids=lambda x: x[0] if isinstance(x[0], str) and "=" in x[0] else "",
)
def test_settings_that_the_weights_do_not_fit(
    sets: list[str], said: list[str], reformer: Program, imported: Path, text: Path
) -> None:
    given = [part for s in sets for part in ("--set", s)]
    result = reformer("train", text, "--from", imported, "--steps", 1, "--run", "x", *given)
    assert result.status == 2
    if sets != ["d_model=48"]:
        assert all(part in result.err for part in said), result.err
    assert "Traceback" not in result.err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "missing"], "no folder 'missing'"),
        (["import", "TEXT"], "is not a folder"),
        (["import", "."], "config.json is missing"),
        (["import", "THERE", "--run", "RUN"], "already"),
        (["import", "THERE", "--revision", "main", "--run", "x"], "--revision main is for models on the hub"),
        (["import", "THERE", "--tokenizer", "missing", "--run", "x"], "no file 'missing'"),
        (["import", "THERE", "--tokenizer", "bytes", "--run", "x"], "the tokenizer has 257 tokens, the model 320"),
        (["export", "missing", "x", "--format", "safetensors"], "not a run directory"),
        (["export", "RUN", "RUN", "--format", "safetensors"], "exists and is not empty"),
        (["export", "RUN", "TEXT", "--format", "safetensors"], "exists and is not empty"),
        (["export", "RUN", "x", "--format", "onnx"], "onnx"),
        (["export", "RUN", "x", "--format", "safetensors", "--hash-seed", "3"], "is for --format transformers"),
        (["export", "IN", "x", "--format", "transformers", "--hash-seed", "many"], "'many' is no seed"),
        (["export", "RUN", "x", "--format", "safetensors", "--license", "a\nb"], "is no name of a licence"),
        (["train", "TEXT", "--from", "missing", "--run", "x"], "not a run directory"),
        (["train", "--resume", "--from", "RUN", "--run", "RUN"], "--from is none, not "),
        (["train", "--resume", "--run", "IN"], "was not trained here"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, reformer: Program, there: Path, imported: Path, run: Path, text: Path
) -> None:
    names = {"THERE": there, "RUN": run, "TEXT": text, "IN": imported}
    assert said in reformer(*(names.get(a, a) for a in arguments)).error
    assert not Path("x").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"model_type": "gpt2"}', "\xff", "[" * 100_000])
def test_a_config_that_is_none(content: str, reformer: Program, there: Path) -> None:
    (there / "config.json").write_text(content, "latin-1")
    result = reformer("import", there, "--run", "x")
    assert result.status == 2
    assert "Traceback" not in result.err
    assert not Path("x").exists()


def test_the_hub_is_asked_for_what_is_needed_alone(
    reformer: Program, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network in tests: the library's one call is stood in for. No code beside a model is fetched."""
    import huggingface_hub

    asked = []

    def snapshot(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(there)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    result = reformer("import", "google/reformer-test", "--revision", "v1", "--run", "r")
    assert result.status == 0, result.err
    assert asked[0][:2] == ("google/reformer-test", "v1")
    assert not [p for p in asked[0][2] if p.endswith(".py") or p == "*"]
    assert json.loads(Path("r/origin.json").read_text())["name"] == "google/reformer-test"

    def fails(*_: object, **__: object) -> str:
        raise OSError("We couldn't connect\nto 'https://huggingface.co'")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    assert "could not be fetched from the hub (We couldn't connect to" in reformer("import", "a/b", "--run", "x").error
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'reformer-cli[hub]'" in reformer("import", "a/b", "--run", "x").error
