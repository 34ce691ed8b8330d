"""Gates, against what they are defined as: a head's result times 2 sigmoid(w . norm(x))."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.models import small, tokens
from reformer import ReformerConfig, ReformerLM
from reformer.backends.native import library
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.windows import make_bucket_windows
from reformer.ops.head_gate import head_gate

needs_compiler = pytest.mark.skipif(library.library() is None, reason=library.problem())
BACKENDS = ["torch", pytest.param("native", marks=needs_compiler)]


@pytest.mark.parametrize("style", ["modern", "published"])
@pytest.mark.parametrize("kind", ["local", "lsh", "full"])
def test_a_gate_is_of_the_token_that_reads(kind: str, style: str) -> None:
    model = small(torch.float64, attn_layers=(kind,), block_style=style)
    branch = model.layers[0][0]
    x, context = torch.randn(2, 70, 32, dtype=torch.float64), PassContext(model.rotary())
    group = slice(1, 3)  # heads must not get each other's gates
    with torch.no_grad():
        parts = branch.project_in(x, context.phase(slice(0, 70)), group)
        normed = F.rms_norm(x, (32,)) if style == "modern" else branch.norm(x)
        found, _ = branch.attend(parts, context, group)
        gate, branch.gate = branch.gate, None
        bare, _ = branch.attend(parts[:-1], context, group)
        wanted = bare * 2 * torch.sigmoid(torch.einsum("blc,hc->bhl", normed, gate[group]))[..., None]
    assert (found - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("values", ["next", "same"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend: str, values: str, given: bool) -> None:
    """Against gates as a product after attention; `given`: the caller puts in `delta` what backward needs."""
    draw = torch.Generator().manual_seed(1)
    k, v, grad = (torch.randn(2, 3, 40, 8, generator=draw) for _ in range(3))
    scores, sink = 2 * torch.randn(2, 3, 40, 1, generator=draw), torch.randn(3, generator=draw)
    layout = make_bucket_windows(torch.randint(4, (2, 2, 3, 40), generator=draw), [5, 9], block=8, itself=False)
    same = values == "same"
    how = {"value_offset": 0 if same else 1, "self_if_alone": same, "backend": backend}
    leaves = [[x.clone().requires_grad_() for x in ((k, v, scores) if same else (k, v, scores, sink))] for _ in "ab"]
    of_sink = [None if same else x[3] for x in leaves]
    wanted = attend(leaves[0][0], leaves[0][0], leaves[0][1], layout, sink=of_sink[0], **how)
    wanted = head_gate(wanted, leaves[0][2])
    delta = (wanted.detach() * grad).sum(-1).transpose(1, 2).flatten() if given else None
    found = attend(
        leaves[1][0], leaves[1][0], leaves[1][1], layout, sink=of_sink[1], gate=leaves[1][2], delta=delta, **how
    )
    assert torch.allclose(found, wanted, atol=1e-6)
    of_wanted, of_found = torch.autograd.grad(wanted, leaves[0], grad), torch.autograd.grad(found, leaves[1], grad * 1)
    for a, b in zip(of_found, of_wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_scores_of_any_size_have_finite_gradients() -> None:
    """A gate that is closed is 0, and nothing is divided by it."""
    scores = torch.tensor([-1e4, 1e4]).view(1, 1, 2, 1).requires_grad_()
    k, v = torch.randn(1, 1, 2, 4, requires_grad=True), torch.ones(1, 1, 2, 4, requires_grad=True)
    layout = make_bucket_windows(torch.zeros(1, 1, 1, 2, dtype=torch.long), [2], block=8, itself=True)
    found = attend(k, k, v, layout, self_if_alone=False, gate=scores)
    assert torch.allclose(found.flatten(), torch.tensor([0.0] * 4 + [2.0] * 4))
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(found.sum(), [k, v, scores]))


def test_gates_of_a_new_model_change_nothing() -> None:
    model = ReformerLM(ReformerConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, d_head=8))
    with_gates = model(tokens(100))
    names = {name.removesuffix(".gate") for name, _ in model.named_parameters() if name.endswith(".gate")}
    assert names == {f"layers.{layer}.{part}" for layer in (0, 1) for part in (0, 1)}
    for name in names:
        model.get_submodule(name).gate = None
    assert torch.equal(with_gates, model(tokens(100)))


def test_heads_in_chunks_have_none() -> None:
    config = ReformerConfig(vocab_size=50, attn_layers=("chunked_local", "chunked_lsh"), positions="none")
    assert not any(name.endswith(".gate") for name, _ in ReformerLM(config).named_parameters())
