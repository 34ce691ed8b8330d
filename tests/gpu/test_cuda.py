"""On a GPU: what the CPU computes, from run to run the same. `make gpu`."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from builders.models import VARIANTS, small, tokens
from reformer import NumericalError, ReformerLM
from reformer.backends.dispatch import choose
from reformer.decode.cuda_graph import NEVER
from reformer.reversible.autograd import begin
from reformer.reversible.sequence import ReversibleSequence

from reformer_cli.config.schema import TrainConfig
from reformer_cli.data.batches import Batch
from reformer_cli.evaluation.scorers import FullContextScorer, WindowScorer
from reformer_cli.training.distributed import World
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.optimizers import capturable, make_optimizers, set_learning_rate
from reformer_cli.training.state import TrainState

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_cpu(variant: str) -> None:
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(700)
    with torch.no_grad():
        here = model(ids)
        there = model.to("cuda")(ids.to("cuda"))
    assert (there.cpu() - here).abs().max() < 1e-9


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_cpu_and_repeat(variant: str) -> None:
    found = []
    for device in ("cpu", "cuda", "cuda"):
        model, ids = small(torch.float64, **VARIANTS[variant]).to(device), tokens(700).to(device)
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        found.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for here, there, again in zip(*found, strict=True):
        assert (here - there).abs().max() < 1e-9
        assert torch.equal(there, again)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pieces_give_the_logits_of_one_forward(step: int) -> None:
    model, ids = small(torch.float64).to("cuda"), tokens(600).to("cuda")
    with torch.no_grad():
        whole = model(ids)
    state, found = None, []
    for part in ids.split(step, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    assert (torch.cat(found, 1) - whole).abs().max() < 1e-9


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_leaves_the_state_of_the_cpu(variant: str) -> None:
    """Read by one pass there, piece by piece here."""
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(330)
    wanted = model.extend(ids)[1].tensors()
    model, ids = model.to("cuda"), ids.to("cuda")
    for step in (330, 110):  # and a few pieces more on the GPU
        state = None
        for part in ids.split(step, 1):
            _, state = model.extend(part, state)
        found = state.tensors()
        for name, x in wanted.items():
            torch.testing.assert_close(found[name], x, atol=1e-9 if x.is_floating_point() else 0, rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"n_buckets": (4,), "far_buckets": 24}, {"attn_layers": ("lsh", "local")}])
def test_a_prompt_of_a_fused_model(
    precision: torch.dtype, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one pass, with few waits however many rows there are, and piece by piece: what comes next is the same."""
    model, found = fused(**{"lsh_window": 64} | changes).eval(), []  # rings that hold a quarter of the text or more
    ids = tokens(700, batch=5).to("cuda")
    for one_pass in (True, False):
        monkeypatch.setattr(ReversibleSequence, "prefills", property(lambda sequence, one_pass=one_pass: one_pass))
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
            if one_pass:
                model.extend(ids, last_only=True)  # compiles
                torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                logits, state = model.extend(ids[:, :690], last_only=True)
            torch.cuda.set_sync_debug_mode("default")
            assert not one_pass or len(waits) <= 4, [str(w.message) for w in waits]
            found.append(torch.cat([logits, *(model.extend(p, state)[0] for p in ids[:, 690:].split([1, 9], 1))], 1))
    assert (found[0] - found[1]).norm() <= (2e-3 if precision == torch.float32 else 0.3) * found[1].norm()


@pytest.mark.parametrize("variant", ["default", "chunked"])
def test_scores_are_those_of_the_cpu(variant: str) -> None:
    ids, found = tokens(900, batch=1)[0], []
    for device in ("cpu", "cuda"):
        model = small(torch.float64, **VARIANTS[variant]).to(device)
        scorers = [FullContextScorer(model, ids[:300]), WindowScorer(model, ids[:300], 128)]
        found.append(torch.stack([torch.cat([s.score(part) for part in ids[300:].split(450)]) for s in scorers]))
    assert (found[0] - found[1]).abs().max() < 1e-9


# Heads of such a width have kernels of their own for one token (reversible/fused_decode.py).
FUSED = {
    "fused": {"d_head": 16, "n_hashes": 2},
    "fused, far round, lines": {"d_head": 64} | VARIANTS["far round"] | VARIANTS["line positions"],
}


@pytest.mark.parametrize(
    ("variant", "batch"),
    [("default", 2), ("lsh, swiglu", 2), ("chunked", 2), ("fused", 1), ("fused", 70), (list(FUSED)[1], 5)],
)
def test_one_token_from_a_graph_is_one_token(variant: str, batch: int) -> None:
    """The third single token is captured, and replayed from then on; a copy of the state has no part in it."""
    model, ids = small(torch.float32, **(VARIANTS | FUSED)[variant]).to("cuda"), tokens(60, batch).to("cuda")
    _, state = model.extend(ids[:, :40])
    plain = state.clone()
    plain.warmup = NEVER
    for t in range(40, 60):
        one = ids[:, t : t + 1]
        found, state = model.extend(one, state)
        wanted, plain = model.extend(one, plain)
        assert (found - wanted).abs().max() < 1e-4
    assert state.graph is not None
    assert plain.graph is None
    branch = state.clone()
    before = {name: x.clone() for name, x in state.tensors().items()}
    model.extend(ids[:, :1], branch)
    assert all(torch.equal(x, before[name]) for name, x in state.tensors().items())


@pytest.mark.parametrize("d_head", [8, 16])
def test_overflow_in_a_graph_is_told(d_head: int) -> None:
    model, ids = small(torch.float32, d_head=d_head).to("cuda"), tokens(30).to("cuda")
    state = None
    for t in range(5):
        _, state = model.extend(ids[:, t : t + 1], state)
    with torch.no_grad():
        model.layers[0][1].output.weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="layer 0 attention"):
        model.extend(ids[:, 5:6], state)


def test_heads_that_grow_are_not_captured() -> None:
    model, ids = small(torch.float32, attn_layers=("full",)).to("cuda"), tokens(30).to("cuda")
    state = None
    for t in range(6):
        _, state = model.extend(ids[:, t : t + 1], state)
    assert state.graph is None


@pytest.mark.parametrize("variant", ["default", "chunked", "groups of heads"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_triton_is_what_auto_takes_and_close_to_torch(variant: str, precision: torch.dtype) -> None:
    found = []
    for backend in ("auto", "torch"):
        model = small(torch.float32, **VARIANTS[variant], backend=backend).to("cuda")
        assert choose(backend, model.embedding) == ("triton" if backend == "auto" else "torch")
        ids = tokens(700).to("cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
        found.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    largest = max(b.norm() for b in found[1][1:])
    for a, b in zip(*found, strict=True):
        # In bfloat16 another rounding is now and then another bucket. What almost cancels has no digits to compare.
        near, least = (2e-3, 1e-4) if precision == torch.float32 else (0.3, 1e-3)
        assert (a - b).norm() <= near * b.norm().clamp_min(least * largest)


def test_rebuilt_streams_are_the_very_bits() -> None:
    """Backward computes every branch with the kernels and tilings of forward: else the streams would not come back."""
    model, ids = small(torch.float32).to("cuda"), tokens(700).to("cuda")
    p = model.new_pass(ids)
    sequence, context = p.sequence, p.context
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        begun = begin(sequence.streams, p.embedding, model.embedding_weight())
        streams = [s.clone() for s in begun]
        saved = sequence.run(streams, context)
        gradients = [torch.randn_like(s, dtype=torch.float32) for s in streams]
        sequence.run_back(streams, gradients, context, saved)
    assert all(torch.equal(a, b) for a, b in zip(begun, streams, strict=True))


def fused(**changes: object) -> ReformerLM:
    sizes = {"d_head": 16, "chunk_tokens": 4096, "n_hashes": 2, "lsh_window": 5, "backend": "auto"}
    return small(torch.float32, **(sizes | changes)).to("cuda").train()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_waits_for_nothing(precision: torch.dtype) -> None:
    model, ids = fused(), tokens(700).to("cuda")
    assert model.sequence.fused is not None
    for mode in ("default", "error"):  # the first compiles
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
                loss = model.loss(ids[:, :-1], ids[:, 1:], checks=[])
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("optimizer", "dropout"), [("adamw", 0.0), ("muon", 0.2)])
def test_a_step_from_a_graph_is_the_step(optimizer: str, dropout: float) -> None:
    """Gradients and update, each a graph of its own, of batches in which a document ends and others in turns; with
    dropout, whose seed is another at every step."""
    found = []
    config = TrainConfig(steps=1, precision="bfloat16", optimizer=optimizer)
    for graphed in (False, True):
        model, figures = fused(dropout=dropout), []
        gradients, optimizers = Gradients(model, config, World(0, 1, "cuda")), make_optimizers(model, config)
        assert capturable(optimizers)
        gradients.graphed.failed = not graphed
        for n in range(12):
            ids = tokens(300, seed=n)
            places = (torch.arange(299) > 100).long().expand(len(ids), -1).contiguous() if n % 2 else None
            read = LoadedBatch(Batch(ids[:, :-1], ids[:, 1:], places), 600.0, ids[:, 1:].numel())
            set_learning_rate(optimizers, 0.01 / (1 + n))
            figures.append(gradients.of(read, TrainState(step=n))[:2])
            gradients.then(lambda optimizers=optimizers: [o.step() for o in optimizers], True)
        captured = gradients.graphed.captured.values()
        assert [one.after is not None for one in captured] == [True] * (2 if graphed else 0)
        found.append((figures, [p.detach().clone() for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
