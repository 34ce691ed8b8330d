"""Token by token is the parallel pass: any pieces, every variant, past every internal capacity."""

from __future__ import annotations

import pytest
import torch
from builders.models import CAUSAL, VARIANTS, small, tokens
from reformer import ReformerLM
from reformer.backends.native import library
from reformer.decode.bucket_cache import BucketCache
from torch import Tensor

needs_compiler = pytest.mark.skipif(library.library() is None, reason=library.problem())
BACKENDS = ["torch", pytest.param("native", marks=needs_compiler)]


def in_pieces(model: ReformerLM, ids: Tensor, step: int) -> Tensor:
    state, found = None, []
    for part in ids.split(step, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("variant", CAUSAL)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pieces_give_the_logits_of_one_forward(variant: str, step: int) -> None:
    # Rings of 16 and 20 go round several times, and what grows outgrows its first 256.
    # Of seed 0, the rounding of groups of heads tips one of 1,500 vectors into another bucket.
    length = {1: 150, 7: 350 if "full" in variant else 217, 1000: 1500}[step]
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(length, seed=1)
    with torch.no_grad():
        whole = model(ids)
    # Groups of heads are rounded to the streams' unit one by one, which decoding need not do.
    assert (in_pieces(model, ids, step) - whole).abs().max() < (1e-5 if model.config.chunk_heads else 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", [*CAUSAL, "layer norm, axial"])
def test_float32_to_rounding(variant: str, backend: str) -> None:
    """A few tokens go through a list of operations in C where there is one, more through the large products.

    Where a vector lies on the border of two buckets, two roundings can fall to either side: one text in a
    hundred, another one on every kind of CPU. What is wrong is wrong for the next two texts as well.
    """
    changes = VARIANTS.get(variant, VARIANTS["full, published style, axial"] | {"attn_layers": ("mixed",)})
    model = small(backend=backend, **changes)
    if _differs(model, tokens(100), backend, changes):
        assert not any(_differs(model, tokens(100, seed=seed), backend, changes) for seed in (1, 2))


def _differs(model: ReformerLM, ids: Tensor, backend: str, changes: dict) -> bool:
    with torch.no_grad():
        whole = model(ids)
    differs = False
    for steps in ([1] * 100, [7] * 14 + [2], [70, 1, 1, 3, 1, 24]):
        state, found = None, []
        for part in ids.split(steps, 1):
            logits, state = model.extend(part, state)
            found.append(logits)
        assert state is not None
        differs |= bool((torch.cat(found, 1) - whole).abs().max() >= 2e-6 * max(10, float(whole.abs().max())))
        taped = backend == "native" and "full" not in changes.get("attn_layers", ())
        assert (state.program is not None) == (taped and (1 in steps or 7 in steps))
    return differs


@needs_compiler
def test_as_many_rounds_as_a_config_may_have() -> None:
    """C's arrays held 64 rounds, and a shared config with one more round had 65: memory was overwritten."""
    changes = {"n_hashes": 64, "n_buckets": (2,), "far_buckets": 4, "lsh_window": 2, "n_layers": 1}
    assert not _differs(small(backend="native", **changes), tokens(100), "native", changes)


@needs_compiler
def test_both_backends_keep_the_same_state() -> None:
    """A session begun with one goes on with the other."""
    states = []
    for backend in ("native", "torch"):
        model, state = small(backend=backend, n_hashes=2, lsh_window=5), None
        for part in tokens(120).split([1, 50, 1, 1, 60, 7], 1):
            _, state = model.extend(part, state)
        states.append(state)
    one, other = states
    for a, b in zip(one.caches, other.caches, strict=True):
        if isinstance(a, BucketCache):
            assert torch.equal(a.times, b.times)
            assert torch.equal(a.ids, b.ids)
            assert torch.equal(a.counts, b.counts)
            assert (a.pairs - b.pairs).abs().max() < 1e-5
        elif a is not None:
            assert (a.keys - b.keys).abs().max() < 1e-5
    with torch.no_grad():
        more = [small(backend=b).extend(tokens(9, seed=4), s)[0] for b, s in (("torch", one), ("native", other))]
    assert (more[0] - more[1]).abs().max() < 2e-5


@pytest.mark.parametrize("variant", [*VARIANTS, "chunked alone"])
@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=needs_compiler)])
def test_rows_of_different_lengths(variant: str, dtype: torch.dtype) -> None:
    """Peers gather the first row's past for all of them, and forget the padding."""
    model = small(dtype, **VARIANTS.get(variant, {"attn_layers": ("chunked_lsh",), "positions": "none"}))
    lengths, close = [3, 90, 41], 1e-12 if dtype == torch.float64 else 2e-5
    prompts, more = tokens(90, batch=3), tokens(10, batch=3, seed=8)
    logits, state = model.extend(prompts, last_only=True, counts=torch.tensor(lengths))
    assert state.seen.tolist() == lengths
    joint = [logits, *(model.extend(part, state)[0] for part in more.split([1, 1, 5, 3], 1))]
    for row, n in enumerate(lengths):
        first, alone = model.extend(prompts[row : row + 1, :n], last_only=True)
        apart = [first, *(model.extend(part, alone)[0] for part in more[row : row + 1].split([1, 1, 5, 3], 1))]
        for a, b in zip(joint, apart, strict=True):
            assert (a[row] - b[0]).abs().max() < close


def test_a_row_may_have_nothing_new() -> None:
    model, ids = small(torch.float64), tokens(40)
    _, state = model.extend(ids)
    model.extend(tokens(5, seed=3), state, counts=torch.tensor([0, 5]))
    model.extend(tokens(1, seed=4), state, counts=torch.tensor([1, 0]))
    assert state.seen.tolist() == [41, 45]
    wanted, _ = model.extend(torch.cat([ids[:1], tokens(1, seed=4)[:1], ids[:1, :6]], 1))
    assert (model.extend(ids[:, :6], state)[0][0] - wanted[0, -6:]).abs().max() < 1e-12


def test_one_prompt_many_continuations() -> None:
    model = small()
    _, state = model.extend(tokens(70, batch=1))
    many, alone = state.select(torch.tensor([0, 0, 0])), state.clone()
    more = tokens(20, batch=3, seed=2)
    found = torch.cat([model.extend(part, many)[0] for part in more.split(1, 1)], 1)
    assert (found[1] - model.extend(more[1:2], alone)[0][0]).abs().max() < 2e-5
    assert state.position == 70  # untouched


@pytest.mark.parametrize("variant", CAUSAL)
def test_later_tokens_change_no_earlier_logit(variant: str) -> None:
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(400)
    with torch.no_grad():
        whole = model(ids)
        for cut in (1, 130, 399):
            other = torch.cat([ids[:, :cut], tokens(400, seed=9)[:, cut:]], 1)
            assert (model(other)[:, :cut] - whole[:, :cut]).abs().max() < 1e-12


def test_the_far_past_is_reached() -> None:
    # A window of 20 and 3 layers reach 60 tokens back; only the hash carries a change at 0 to 399.
    ids = tokens(400)
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 50
    for kind, reaches in (("lsh", True), ("local", False)):
        model = small(torch.float64, attn_layers=(kind,))
        with torch.no_grad():
            moved = (model(changed)[:, 390:] - model(ids)[:, 390:]).abs().max() > 1e-9
        assert bool(moved) == reaches


def test_documents_never_meet() -> None:
    model = small(torch.float64)
    a, b = tokens(60), tokens(90, seed=1)
    documents = torch.cat([torch.zeros(2, 60), torch.ones(2, 90)], 1).long()
    with torch.no_grad():
        packed = model(torch.cat([a, b], 1), documents)
        assert (packed[:, :60] - model(a)).abs().max() < 1e-12
        # Rotary positions are relative, LSH heads have none: where a document starts makes no difference.
        assert (packed[:, 60:] - model(b)).abs().max() < 1e-12


def test_documents_of_a_pack_can_change_places() -> None:
    model, parts = small(torch.float64), [tokens(n, seed=n) for n in (60, 90, 33)]

    def packed(order: list[int]) -> list[Tensor]:
        ids = torch.cat([parts[n] for n in order], 1)
        documents = torch.cat([torch.full_like(parts[n], n) for n in order], 1)
        found = model(ids, documents).split([parts[n].shape[1] for n in order], 1)
        return [found[order.index(n)] for n in range(3)]

    with torch.no_grad():
        for one, other in zip(packed([0, 1, 2]), packed([2, 0, 1]), strict=True):
            assert (one - other).abs().max() < 1e-12


def test_chunked_local_heads_decode_exactly() -> None:
    """Their chunks do not move: a token sees its chunk and the one before, in both."""
    model, ids = small(torch.float64, **VARIANTS["chunked"] | {"attn_layers": ("chunked_local",)}), tokens(100)
    with torch.no_grad():
        whole = model(ids)
        for step in (1, 7, 100):
            assert (in_pieces(model, ids, step) - whole).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=needs_compiler)])
def test_chunked_hashed_heads_are_decoded_bucket_by_bucket(dtype: torch.dtype) -> None:
    """Any pieces give the same; while all of the text is in one bucket's reach, it is what the chunks show."""
    changes = VARIANTS["chunked"] | {"attn_layers": ("chunked_lsh",)}
    model, ids = small(dtype, **changes), tokens(100)
    found = [in_pieces(model, ids, step) for step in (1, 7, 100)]
    for other in found[1:]:
        assert (found[0] - other).abs().max() < (1e-12 if dtype == torch.float64 else 2e-5)
    one = small(torch.float64, **changes | {"n_layers": 1})
    for branch in (c.sublayer for c in one.sequence.couplings):
        if hasattr(branch, "rotations"):
            branch.rotations.zero_()  # every vector falls into the first bucket
    with torch.no_grad():
        short = tokens(16)  # two chunks of 8
        assert (in_pieces(one, short, 1) - one(short)).abs().max() < 1e-12


def test_state_is_bounded_and_clones_are_apart() -> None:
    model = small()
    state, held = None, []
    for n in range(12):
        _, state = model.extend(tokens(1000, seed=n), state)
        held.append(state.nbytes)
    assert state.position == 12_000
    # Rare buckets fill late; a state that grew with the text would come to four times as much.
    assert max(held[3:]) <= 1.05 * held[2]
    copy = state.clone()
    one, _ = model.extend(tokens(1), state)
    model.extend(tokens(5, seed=3), state)
    other, _ = model.extend(tokens(1), copy)
    assert torch.equal(one, other)


def test_score_is_the_loss() -> None:
    model = small(torch.float64)
    ids, targets = tokens(300), tokens(300, seed=1)
    targets[0, :7] = -100
    nats, _ = model.score(ids[:, :200], targets[:, :200])
    more, _ = model.score(ids, targets)
    assert (nats - more[:, :200]).abs().max() < 1e-12
    assert (nats[0, :7] == 0).all()
    mean = more.sum() / (targets >= 0).sum()
    assert abs(float(mean - model.loss(ids, targets).detach())) < 1e-12
    logits = model(ids).detach()
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert abs(float(mean - wanted)) < 1e-12


@pytest.mark.parametrize("variant", ["default", "chunked"])
def test_score_forward_is_the_loss(variant: str) -> None:
    model = small(torch.float64, **VARIANTS[variant])
    ids, targets = tokens(300), tokens(300, seed=1)
    targets[0, :7] = -100
    nats = model.score_forward(ids, targets)
    assert (nats[0, :7] == 0).all()
    assert abs(float(nats.sum() / (targets >= 0).sum() - model.loss(ids, targets).detach())) < 1e-12
    # Decoding of attention in chunks follows another rule; were they equal, this test would show nothing.
    assert ((nats - model.score(ids, targets)[0]).abs().max() < 1e-12) == (variant == "default")


def test_wrong_calls_are_refused() -> None:
    model = small()
    _, state = model.extend(tokens(3))
    with pytest.raises(ValueError, match="batch of 2"):
        model.extend(tokens(3, batch=1), state)
    with pytest.raises(ValueError, match="vocab_size 50"):
        model(torch.full((1, 3), 50))
    with pytest.raises(ValueError, match="at least one"):
        model.extend(tokens(3)[:, :0])
    axial = small(**VARIANTS["full, published style, axial"])
    with pytest.raises(ValueError, match="1,601 tokens exceed the 1,600"):
        axial(tokens(1601))
    with pytest.raises(ValueError, match="dropout_seed"):
        small(dropout=0.5).train()(tokens(3))


@needs_compiler
@pytest.mark.parametrize("variant", ["default", "far round", "line positions", "groups of 3", "groups of heads"])
def test_states_side_by_side_are_as_alone(variant: str) -> None:
    """Texts of other lengths join and leave between two tokens; each has the bits that it has alone."""
    model, ids = small(backend="native", **VARIANTS[variant]), tokens(60, batch=4)
    alone = [model.extend(row[None, : 5 + 9 * n], last_only=True)[1] for n, row in enumerate(ids)]
    beside = [state.clone() for state in alone]
    for step in range(12):
        there = [n for n in range(4) if step % (n + 2) or n == 0]  # who is there changes all the time
        new = torch.stack([ids[n, 40 + step] for n in there])[:, None]
        together = model.extend_each(new, [beside[n] for n in there])
        for row, n in enumerate(there):
            expected, _ = model.extend(new[row : row + 1], alone[n], last_only=True)
            assert torch.equal(together[row], expected[0, -1]), (step, n)
    several = model.extend_each(ids[:3, :2], [alone[0].select(torch.tensor([0, 0])), beside[0].clone()])
    assert torch.equal(several[2], model.extend(ids[2:3, :2], beside[0], last_only=True)[0][0, -1])


@needs_compiler
def test_states_share_a_program_until_weights_change() -> None:
    """Guards against decoding by weights that a training step has changed since."""
    model, ids = small(backend="native"), tokens(3, batch=1)
    first, second = model.extend(ids)[1], model.extend(ids)[1]
    assert first.program is second.program is not None
    with torch.no_grad():
        model.head.weight.mul_(2)
    logits, third = model.extend(ids)
    assert third.program is not first.program
    assert torch.allclose(logits, model(ids), atol=1e-4)
