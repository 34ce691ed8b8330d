"""Layers on groups of tokens: nothing leaks, any length and any pieces, and the streams of groups are rebuilt too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from builders.models import small, tokens
from reformer import ReformerConfig, ReformerLM
from reformer.analysis import hash_statistics
from reformer.backends.native import library
from reformer.layers.context import PassContext
from reformer.layers.embedding import Embedding
from reformer.memory import largest_state
from reformer.reversible.autograd import begin
from reformer.reversible.groups import index_groups
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.shorten import Saved
from torch import Tensor


def grouped(dtype: torch.dtype = torch.float64, size: int = 3, **changes: Any) -> ReformerLM:
    return small(dtype, shorten_factor=size, **{"n_layers": 4, "attn_layers": ("mixed", "lsh")} | changes)


def in_pieces(model: ReformerLM, ids: Tensor, step: int) -> Tensor:
    state, found = None, []
    for part in ids.split(step, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("length", [1, 2, 4, 5, 61])
def test_any_length_in_any_pieces(size: int, length: int) -> None:
    """Bug guarded against: peers pad to whole groups, and cannot decode at all."""
    model, ids = grouped(size=size), tokens(length)
    with torch.no_grad():
        whole = model(ids)
    for step in {1, 2, size, 100}:
        assert (in_pieces(model, ids, step) - whole).abs().max() < 1e-12
    torch.autograd.grad(model.loss(ids, ids), model.embedding)


def test_a_group_is_known_from_its_last_token_on() -> None:
    """One token earlier and it would have read the future; one later and something known is withheld."""
    model, ids = grouped(size=4, attn_layers=("local",), local_window=1, n_layers=3), tokens(40)
    with torch.no_grad():
        whole = model(ids)
        for token in (0, 5, 7, 18):
            other = ids.clone()
            other[:, token] = (other[:, token] + 1) % 50
            moved = (model(other) - whole).abs().amax((0, 2)) > 1e-9
            last = token // 4 * 4 + 3  # of its group; windows of 1: tokens meet in groups alone
            wanted = [n == token or last <= n < last + 4 for n in range(40)]
            assert moved.tolist() == wanted


def test_groups_begin_anew_with_each_document() -> None:
    """Bug guarded against: a group across two documents, by which the second reads the first."""
    model, lengths = grouped(), [(50, 1, 2, 97), (3, 80, 60, 7)]
    ids = tokens(150)
    documents = torch.stack([torch.repeat_interleave(torch.arange(4), torch.tensor(n)) for n in lengths])
    with torch.no_grad():
        packed = model(ids, documents)
        for row, each in enumerate(lengths):
            ends = torch.tensor((0, *each)).cumsum(0).tolist()
            for start, stop in pairwise(ends):
                alone = model(ids[row : row + 1, start:stop])
                assert (packed[row, start:stop] - alone[0]).abs().max() < 1e-12


def test_no_gradient_crosses_documents() -> None:
    model, ids = grouped(), tokens(100)
    documents = (torch.arange(100)[None] >= 52).long().expand(2, -1)
    targets = ids.clone()
    targets[:, :52] = -100
    found = torch.autograd.grad(model.loss(ids, targets, documents), list(model.parameters()), allow_unused=True)
    other = torch.cat([tokens(52, seed=5), ids[:, 52:]], 1)
    again = torch.autograd.grad(model.loss(other, targets, documents), list(model.parameters()), allow_unused=True)
    for (name, _), a, b in zip(model.named_parameters(), found, again, strict=True):
        assert name == "embedding" or (a - b).abs().max() < 1e-12, name
    assert (found[0] - again[0])[ids[:, 52:].unique()].abs().max() < 1e-12


def test_members_of_documents_by_hand() -> None:
    documents = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]])
    m = index_groups(2, 2, 8, documents)
    assert m.ends is not None
    assert m.served is not None
    assert m.ends.tolist() == [[1, 3, 5, 8], [1, 3, 5, 7]]
    # Token 2 begins a document and reads nothing; token 6 still reads the group of 4 and 5.
    assert m.served.tolist() == [
        [[True, False], [True, True], [True, True], [False, False]],
        [[True, True], [True, True], [True, True], [True, False]],
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_both_levels_rebuild_bit_for_bit(dtype: torch.dtype, packed: bool) -> None:
    model, length = grouped(dtype, n_layers=8, vanilla_layers=(3, 1)), 211
    documents = (torch.arange(length)[None] // 50).expand(2, -1) if packed else None
    context, sequence = PassContext(model.rotary(), documents), model.sequence
    streams = begin(sequence.streams, Embedding(tokens(length)), model.embedding_weight().detach())
    first = [s.clone() for s in streams]
    with torch.no_grad():
        found = sequence.run(streams, context)
        (inner,) = (r for r in found if isinstance(r, Saved))
        ends = [s.clone() for s in inner.pair]
        gradients = [torch.zeros_like(s, dtype=sequence.streams.dtype) for s in streams]
        sequence.run_back(streams, gradients, context, found)
    assert all(torch.equal(a, b) for a, b in zip(streams, first, strict=True))
    assert not torch.equal(ends[0], inner.pair[0])
    assert torch.equal(*inner.pair)  # both began as the same rows


def test_backward_runs_the_groups_once_more_and_not_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids, runs = grouped(torch.float32), tokens(60), []
    run = ReversibleSequence.run
    monkeypatch.setattr(
        ReversibleSequence, "run", lambda self, *a, **k: runs.append(len(self.couplings)) or run(self, *a, **k)
    )
    loss = model.loss(ids, ids)
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    inner = 2 + 3  # a layer of LSH alone, and a mixed one
    assert sorted(runs) == [inner, 3 + 1 + 2]
    second = torch.autograd.grad(loss, parameters)  # the streams have been run back: all runs once more
    assert len(runs) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_small_steps_keep_their_graphs_and_the_bits_stay(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a second backward pass, for which nothing is left of them, rebuilds both levels."""
    ids, found = tokens(100), []
    documents = (torch.arange(100)[None] // 31).expand(2, -1) if packed else None
    for kept in (0, 2**18, 2**28):
        monkeypatch.setattr("reformer.reversible.sequence.room", lambda device, kept=kept: kept)
        model = grouped(torch.float32, chunk_tokens=4096, dropout=0.1).train()
        loss = model.loss(ids, ids, documents, dropout_seed=2)
        for again in (True, False):
            found.append(torch.autograd.grad(loss, list(model.parameters()), retain_graph=again))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_frozen_levels() -> None:
    whole, part, ids = grouped(torch.float32), grouped(torch.float32), tokens(60)
    for name, p in part.named_parameters():
        p.requires_grad_("groups.down" in name or "layers.1" in name)
    for model in (whole, part):
        model.loss(ids, ids).backward()
    for (name, a), (_, b) in zip(whole.named_parameters(), part.named_parameters(), strict=True):
        assert (b.grad is not None) == b.requires_grad, name
        assert b.grad is None or torch.equal(a.grad, b.grad), name


def test_the_layers_step_once_a_group() -> None:
    """A token that completes no group costs the outer layers alone."""
    model, steps, state = grouped(torch.float32, backend="torch"), [], None
    branch = model.layers[1][0]
    step = branch.decode
    branch.decode = lambda x, *rest: steps.append(x.shape[1]) or step(x, *rest)
    for part in tokens(20).split(1, 1):
        _, state = model.extend(part, state)
    assert steps == [1] * (20 // 3)
    model.extend(tokens(10), state)
    assert steps[6:] == [4]  # 2 tokens were waiting


def test_state_and_what_it_may_take() -> None:
    """What is refused before a long text is begun is what it would have taken."""
    model = grouped(torch.float32)
    _, state = model.extend(tokens(3000, batch=2))
    assert state.nbytes <= largest_state(model.config, 3000, 2) < 1.5 * state.nbytes
    plain = ReformerLM(ReformerConfig(**{**vars(model.config), "shorten_factor": 1}))
    assert largest_state(model.config, 30, 2) < largest_state(plain.config, 30, 2)


def test_statistics_of_the_hash_are_of_groups_there() -> None:
    found = hash_statistics(grouped(torch.float32), tokens(200, batch=1))
    assert [s.layer for s in found] == [f"layer {n}" for n in range(4)]
    with pytest.raises(ValueError, match="more than 50"):
        hash_statistics(grouped(torch.float32), tokens(50, batch=1))


@pytest.mark.skipif(library.library() is None, reason=library.problem())
def test_rows_out_of_step_in_c_and_in_pytorch() -> None:
    """Rows that complete a group at different tokens go another way than those that keep step, of one state."""
    model, ids = grouped(torch.float32), tokens(60, batch=3)
    with torch.no_grad():
        whole = model(ids)
    _, state = model.extend(ids[:, :10], counts=torch.tensor([10, 8, 9]))
    for n in range(40):
        new = torch.stack([ids[row, start + n] for row, start in enumerate((10, 8, 9))])[:, None]
        logits, state = model.extend(new, state)
        for row, start in enumerate((10, 8, 9)):
            assert (logits[row, 0] - whole[row, start + n]).abs().max() < 2e-5
    assert state.program is not None
    together = model.extend(ids[:, :10])[1]
    for n in range(10, 40):
        logits, together = model.extend(ids[:, n : n + 1], together)
        assert (logits[:, 0] - whole[:, n]).abs().max() < 2e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shorten_factor": 3, "n_layers": 2}, "leave none of n_layers 2 for groups of shorten_factor 3"),
        ({"shorten_factor": 0}, "shorten_factor"),
        (
            {"shorten_factor": 2, "attn_layers": ("chunked_lsh",), "positions": "none"},
            r"attention in chunks does not go with shorten_factor: 2 \(1\)",
        ),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReformerConfig(vocab_size=50, **changes)


@pytest.mark.slow
def test_exported() -> None:
    model, ids = grouped(torch.float32, n_layers=3), tokens(65)
    again = torch.export.export(model, (ids,)).module()
    assert (again(tokens(65, seed=3)) - model(tokens(65, seed=3))).abs().max() < 5e-5
