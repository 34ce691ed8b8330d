"""Keys made of several tokens, against the sum written out; where the text begins, where a document does, in slices."""

from __future__ import annotations

import pytest
import reformer.ops.key_conv as module
import torch
from builders.models import small, tokens
from reformer.ops.key_conv import key_conv
from torch import Tensor


def by_hand(x: Tensor, weight: Tensor, lengths: Tensor, documents: Tensor | None = None) -> Tensor:
    """Token by token, as the docstring says."""
    out = torch.zeros_like(x)
    for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:3])).tolist():
        u = torch.zeros(x.shape[3], dtype=x.dtype)
        for s in range(weight.shape[1]):
            if t >= s and (documents is None or documents[b, t] == documents[b, t - s]):
                u = u + weight[h, s] * x[b, h, t - s]
        out[b, h, t] = lengths[h] * u / u.norm()
    return out


def inputs(length: int = 40, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((2, 3, length, 8), (3, n, 8), (3,))
    x, weight, lengths = (torch.randn(s, generator=random, dtype=torch.float64).requires_grad_() for s in shapes)
    return x, weight, lengths


DOCUMENTS = torch.tensor([[0] * 7 + [1] * 33, [0] * 20 + [1] * 2 + [2] * 18])


@pytest.fixture(params=[5, 13, 4096])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "AT_ONCE", request.param)
    return request.param


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["one document", "several"])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_the_sum_written_out(at_once: int, documents: Tensor | None, n: int) -> None:
    x, weight, lengths = inputs(n=n)
    with torch.no_grad():
        assert (key_conv(x, weight, lengths, documents) - by_hand(x, weight, lengths, documents)).abs().max() < 1e-12


@pytest.mark.parametrize("documents", [None, DOCUMENTS[:, :11]], ids=["one document", "several"])
def test_gradients(at_once: int, documents: Tensor | None) -> None:
    assert torch.autograd.gradcheck(lambda *parts: key_conv(*parts, documents), inputs(11), fast_mode=True)


def test_what_came_before_counts_and_pieces_are_the_whole(at_once: int) -> None:
    x, weight, lengths = (t.detach() for t in inputs())
    whole, before, found = key_conv(x, weight, lengths), torch.zeros(2, 3, 2, 8, dtype=x.dtype), []
    for part in x.split([1, 1, 20, 18], 2):
        found.append(key_conv(part, weight, lengths, before=before))
        before = torch.cat([before, part], 2)[:, :, -2:]
    assert (torch.cat(found, 2) - whole).abs().max() < 1e-14


def test_nothing_stays_nothing() -> None:
    x, weight, lengths = (t.detach().requires_grad_() for t in inputs())
    out = key_conv(x * 0, weight, lengths)
    out.sum().backward()
    assert not out.any()
    assert all(bool(t.grad.isfinite().all()) for t in (x, weight, lengths))


def test_however_the_vectors_lie_the_bits_are_the_same() -> None:
    """Sums over strided memory came in another order: the rebuilt pass and the plain one differed in the last bit."""
    found = []
    for token_by_token in (False, True):
        x, weight, lengths = (t.detach().float() for t in inputs(500))
        x = x.transpose(1, 2).contiguous().transpose(1, 2) if token_by_token else x
        parts = [t.requires_grad_() for t in (x, weight, lengths)]
        key_conv(*parts).square().cumsum(2).sum().backward()
        found.append([t.grad for t in parts])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_match_is_a_context() -> None:
    """Keys of one token meet wherever the token is the same; keys of three where the two before are the same too."""
    ids = tokens(60, batch=1) % 5
    shares = []
    for n in (1, 3):
        model = small(n_layers=1, attn_layers=("lsh",), lsh_key_conv=n)
        branch = model.layers[0][0]
        with torch.no_grad():
            x, *_ = branch.project_in(model.embedding_weight()[ids], None, branch.all_heads)
            k = torch.nn.functional.normalize(branch.keys(x, branch.all_heads), dim=-1)[0, 0]
        alike = (k @ k.t() > 1 - 1e-5)[2:, 2:]
        row = ids[0].tolist()
        grams = [row[i - n + 1 : i + 1] for i in range(2, 60)]
        assert alike.tolist() == [[a == b for b in grams] for a in grams]
        shares.append(float(alike.float().mean()))
    assert shares[1] < shares[0] / 4
