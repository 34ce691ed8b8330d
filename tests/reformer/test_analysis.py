"""Statistics of the hash: against brute force, and where the answer is known."""

from __future__ import annotations

import pytest
import torch
from builders.models import small, tokens
from reformer.analysis import hash_statistics
from reformer.ops.bucket_attention.reference import visible


def test_against_brute_force() -> None:
    model, ids = small(n_layers=1, attn_layers=("lsh",), lsh_window=5, n_hashes=2, n_buckets=(6,)), tokens(90, batch=1)
    (found,) = hash_statistics(model, ids, nearest=4, queries=10_000)
    branch = model.layers[0][0]
    with torch.no_grad():
        x, *_ = branch.project_in(model.embedding_weight()[ids], None, branch.all_heads)
        k = branch.keys(x, branch.all_heads)
    buckets = branch.buckets(k, branch.all_heads)
    seen = visible(buckets, branch.windows, itself=False)[0]
    scores = (k[0] @ k[0].transpose(1, 2)).masked_fill(torch.ones(90, 90).triu().bool(), -torch.inf)
    for head in range(4):
        right = [int(seen[head, i, j]) for i in range(4, 90) for j in scores[head, i].topk(4).indices.tolist()]
        assert float(found.found[head]) == pytest.approx(sum(right) / len(right))
        for r in range(2):
            row = buckets[r, 0, head].tolist()
            shares = [row.count(b) / 90 for b in set(row)]
            assert float(found.effective_buckets[r, head]) == pytest.approx(1 / sum(s * s for s in shares))
            assert float(found.largest_bucket[r, head]) == pytest.approx(max(shares))
            earlier = [row[:i].count(row[i]) for i in range(90)]
            lost = sum(max(0, n - 4) for n in earlier) / sum(earlier)
            assert float(found.fell_out[r, head]) == pytest.approx(lost)


def test_a_window_as_long_as_the_text_loses_nothing_and_one_bucket_finds_all() -> None:
    model = small(n_layers=2)
    for layer in (0, 1):
        model.layers[layer][1].attend_to_all(300)
    for layer in hash_statistics(model, tokens(150, batch=1)):
        assert (layer.fell_out == 0).all()
        assert (layer.found == 1).all()
        assert (layer.effective_buckets == 1).all()
    assert [s.layer for s in hash_statistics(model, tokens(150, batch=1))] == ["layer 0", "layer 1"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, more than 16\]"):
        hash_statistics(small(), tokens(16, batch=1))
    with pytest.raises(ValueError, match="not \\[2, 40\\]"):
        hash_statistics(small(), tokens(40))
