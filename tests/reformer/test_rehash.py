"""Another number of rounds, and full attention, from the same weights."""

from __future__ import annotations

import pytest
import torch
from builders.models import small, tokens
from reformer.analysis import hash_statistics
from reformer.ops.bucket_attention import bucket_attention_reference
from reformer.rehash import FULL, with_far_buckets, with_rounds


def rotations(model) -> list[torch.Tensor]:
    return [b for name, b in model.named_buffers() if name.endswith("rotations")]


def test_as_many_rounds_as_it_has_change_nothing() -> None:
    model, ids = small(torch.float64, n_hashes=2), tokens(200)
    with torch.no_grad():
        assert torch.equal(with_rounds(model, 2)(ids), model(ids))


def test_more_rounds_begin_with_the_fewer_and_repeat() -> None:
    # Drawn as a new model's, all rounds would be others than those that it learnt with.
    model = small(n_hashes=2)
    more, most = with_rounds(model, 4), with_rounds(model, 8)
    for one, four, eight, again in zip(
        *(rotations(m) for m in (model, more, most, with_rounds(model, 8))), strict=True
    ):
        assert torch.equal(four[:, :, :2], one)
        assert torch.equal(eight[:, :, :4], four)
        assert torch.equal(again, eight)
        assert not torch.allclose(eight[:, :, 4], eight[:, :, 5])
    assert not torch.equal(rotations(more)[0][:, :, 2], rotations(more)[1][:, :, 2])  # layers draw their own
    assert more.config.n_hashes == 4
    assert not torch.equal(more(tokens(200)), model(tokens(200)))


def test_fewer_rounds_are_the_first_ones() -> None:
    model = small(n_hashes=3)
    assert torch.equal(rotations(with_rounds(model, 1))[0], rotations(model)[0][:, :, :1])


def test_a_far_round_stands_beside_the_trained_ones() -> None:
    """Other buckets than those would be others than the heads learnt with."""
    model, x = small(n_hashes=2), torch.randn(1, 1, 300, 8)
    far, further = with_far_buckets(model, 32), with_far_buckets(model, 64)
    before, found, more = (m.layers[0][1].buckets(x, slice(None)) for m in (model, far, further))
    assert torch.equal(found[1:], before)
    assert torch.equal(more[1:], before)
    assert torch.equal(found[0] % 8, more[0] % 8)
    assert 8 < int(found.max()) < 32 < int(more.max()) < 64
    assert (far.config.hash_rounds, further.config.hash_rounds) == ([32, 8, 8], [64, 8, 8])
    assert with_far_buckets(model, 0) is model
    assert torch.equal(with_far_buckets(far, 0).layers[0][1].buckets(x, slice(None)), before)


def test_a_trained_far_round_is_kept_or_given_other_buckets() -> None:
    model, x = small(n_buckets=(4,), far_buckets=24, n_hashes=2), torch.randn(1, 1, 300, 8)
    assert with_far_buckets(model, 24) is model
    found, more = (m.layers[0][1].buckets(x, slice(None)) for m in (model, with_far_buckets(model, 48)))
    assert torch.equal(more[1:], found[1:])
    assert torch.equal(more[0] % 4, found[0] % 4)
    assert more[0].max() > 24
    rounds = with_rounds(model, 4)
    assert rounds.config.hash_rounds == [24, 4, 4, 4, 4]
    assert torch.equal(rounds.layers[0][1].buckets(x, slice(None))[:3], found)


def test_a_far_round_reaches_further() -> None:
    """A bucket's window holds its last tokens alone: of a long text nothing was left of what lay far back."""
    model, ids = small(lsh_window=4), tokens(400, batch=1)
    of_8, of_64 = (1 - hash_statistics(m, ids)[0].fell_out for m in (model, with_far_buckets(model, 64)))
    assert of_64[0].mean() > 2 * of_8.mean()


def test_with_a_far_round_decoding_is_the_whole_pass() -> None:
    model, ids = with_far_buckets(small(), 32), tokens(100)
    state, found = None, []
    for part in ids.split(9, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    with torch.no_grad():
        assert (torch.cat(found, 1) - model(ids)).abs().max() < 1e-3


def test_full_attention_is_the_definition_with_one_bucket() -> None:
    model = small(torch.float64, attn_layers=("lsh",), lsh_window=4, n_hashes=2)
    full = with_rounds(model, FULL, 150)
    heads = full.layers[0][0]
    heads.gate = None
    x, v = (torch.randn(1, 4, 150, 8, dtype=torch.float64) for _ in range(2))
    out, _ = heads.attend((x, v), _context(), heads.all_heads)
    k = heads.keys(x, heads.all_heads)
    one_bucket = torch.zeros(1, 1, 4, 150, dtype=torch.long)
    wanted = bucket_attention_reference(k, k, v, one_bucket, [150], values="next", sink=heads.sink)
    assert (out - wanted).abs().max() < 1e-12


def _context():
    from reformer.layers.context import PassContext

    return PassContext()


def test_full_attention_of_chunks() -> None:
    model = small(
        torch.float64,
        attn_layers=("chunked_lsh",),
        positions="none",
        lsh_window=8,
        n_hashes=2,
    )
    full = with_rounds(model, FULL, 60)
    ids, changed = tokens(60), tokens(60)
    changed[:, 59] = (changed[:, 59] + 1) % 50
    with torch.no_grad():
        a, b = full(ids), full(changed)
    # One chunk holds the text: unlike in chunks of 8, nothing depends on later tokens.
    assert (a[:, :59] - b[:, :59]).abs().max() < 1e-12


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no LSH heads"):
        with_rounds(small(attn_layers=("local",)), 2)
    with pytest.raises(ValueError, match="no LSH heads"):
        with_far_buckets(small(attn_layers=("local",)), 16)
    for wrong in (4, 8, 12, 24, 30):
        with pytest.raises(ValueError, match=f"far_buckets {wrong} is no even multiple of the 8"):
            with_far_buckets(small(), wrong)
    chunked = {"attn_layers": ("chunked_lsh",), "positions": "none"}
    with pytest.raises(ValueError, match="attention in chunks has no hash round that looks further"):
        with_far_buckets(small(**chunked), 16)
    with pytest.raises(ValueError, match="at most 1,048,576 tokens"):
        with_rounds(small(), FULL, 2**20 + 1)
