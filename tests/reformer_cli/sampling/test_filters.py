"""Each filter is tested by the set it keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.models import small
from reformer import ReformerLM

from reformer_cli.sampling import filters
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, generate, stream_samples
from reformer_cli.sampling.history import History
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.sampling.text_stream import TextStream
from reformer_cli.tokenizers.base import ByteTokenizer, StreamDecoder

# Probabilities 0.5, 0.25, 0.15, 0.1, shuffled.
P = torch.tensor([[0.15, 0.5, 0.1, 0.25]])


def kept(logits: torch.Tensor) -> set[int]:
    return set((logits[0] > -torch.inf).nonzero()[:, 0].tolist())


def test_repetition_penalty_lowers_what_was_said() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    found = filters.repetition_penalty(logits, torch.tensor([[0, 1, 0]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 1.0]]


def test_forbidden_tokens_go_and_biased_ones_move() -> None:
    assert kept(filters.forbid(P.log(), [[1, 2]])) == {0, 3}
    given = torch.zeros(2, 4)
    found = filters.bias(given, [[(torch.tensor([1, 3]), 2.0), (torch.tensor([3]), -5.0)], []])
    assert found.tolist() == [[0, 2, 0, -3], [0, 0, 0, 0]]
    assert given.tolist() == [[0] * 4] * 2


def test_the_window_of_the_repetition_penalty() -> None:
    history = History()
    history.extend([0, 1, 2])
    config = SamplingConfig(repetition_penalty=2, repetition_window=2)
    found = filters.apply_filters(
        torch.ones(1, 4), filters.Texts([config], [history], torch.empty(0)), only=["penalties"]
    )
    assert found.tolist() == [[1, 0.5, 0.5, 1]]


def many(logits: torch.Tensor, **settings: Any) -> torch.Tensor:
    """How often each token is drawn of logits [1, vocab_size], as shares."""
    config = SamplingConfig(**{"temperature": 1, "top_p": 1} | settings)
    numbers = filters.random_numbers([torch.Generator().manual_seed(n) for n in range(4_000)])
    texts = filters.Texts([config] * len(numbers), [History()] * len(numbers), numbers)
    drawn = filters.draw(filters.apply_filters(logits.expand(len(numbers), -1), texts), texts)
    return drawn.bincount(minlength=logits.shape[1]) / len(drawn)


def test_draws_follow_the_probabilities() -> None:
    assert (many(P.log()) - P[0]).abs().max() < 0.03


def test_draws_follow_what_filters_keep() -> None:
    expected = torch.tensor([0, 0.25, 0, 0.0625]) / 0.3125  # squares of the two that are kept
    assert (many(P.log(), temperature=0.5, top_k=2) - expected).abs().max() < 0.03


def test_xtc_leaves_out_the_likeliest_as_often_as_asked() -> None:
    """All that reach the threshold but the least likely of them: here 0.5 goes and 0.25 stays."""
    found = many(P.log(), xtc_probability=0.5, xtc_threshold=0.2)
    assert (found - (P[0] + torch.tensor([0.3, 0, 0.2, 0.5])) / 2).abs().max() < 0.03
    assert many(P.log(), xtc_probability=1.0, xtc_threshold=0.3)[1] > 0.4  # one alone stays


def test_mirostat_keeps_the_surprise_near_its_target() -> None:
    """Of a Zipfian vocabulary; the surprise of what is drawn, in bits, is measured as it says itself."""
    logits = -torch.arange(1, 1001.0).log()[None]
    for tau in (2.0, 4.0):
        config = SamplingConfig(temperature=1, mirostat=2, mirostat_tau=tau)
        history, generator = History(), torch.Generator().manual_seed(1)
        surprises = []
        for _ in range(500):
            before = history.mirostat or 2 * tau
            filters.draw(logits, filters.Texts([config], [history], filters.random_numbers([generator])))
            after = history.mirostat
            assert after is not None
            surprises.append((before - after) / config.mirostat_eta + tau)
        assert sum(surprises[100:]) / 400 == pytest.approx(tau, abs=0.3)


def test_count_penalties_are_openais() -> None:
    found = filters.count_penalties(torch.zeros(1, 4), torch.tensor([[1, 1, 3]]), 0.5, 0.25)
    assert found.tolist() == [[0, -1.0, 0, -0.75]]


def test_a_named_order_is_taken() -> None:
    """Temperature 3 first leaves 3 tokens within top-p 0.75, after it 2."""
    order = {"temperature": 3.0, "top_p": 0.75}
    late, early = ({"samplers": names} | order for names in ("top_p;temperature", "temperature;top_p"))
    assert [int((many(P.log(), **settings) > 0).sum()) for settings in (late, early)] == [2, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samplers": "top_k;dyr"}, "dyr is not known"),
        ({"samplers": "top_k;top_k"}, "named twice"),
        ({"samplers": "top_p", "dry_multiplier": 0.9}, "dry_multiplier 0.9 does nothing"),
        ({"mirostat": 2, "top_k": 5}, "mirostat decides"),
    ],
)
def test_what_would_do_nothing_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig(**settings)


def test_options_go_before_a_presets_numbers() -> None:
    careful, own = SamplingConfig(preset="careful"), SamplingConfig(preset="careful", temperature=1.5)
    assert careful.temperature == 0.7
    assert (own.temperature, own.top_p) == (1.5, careful.top_p)


def test_a_text_is_the_same_in_a_batch_and_alone() -> None:
    """Sample k was drawn by the numbers that the samples before it left over."""
    model, settings = small(vocab_size=257), {"max_tokens": 40, "xtc_probability": 0.3, "temperature": 1.2}
    rows = torch.tensor(texts(model, [1, 2, 3], num_samples=3, seed=7, **settings)).T.tolist()
    for n, row in enumerate(rows):
        assert [token for (token,) in texts(model, [1, 2, 3], seed=7 + n, **settings)] == row
    assert texts(model, [1], **settings) != texts(model, [1], **settings)  # no seed: another text each time


def texts(model: ReformerLM, prompt: list[int], end: int = -1, **settings: Any) -> list[list[int]]:
    """Tokens drawn step by step, one list a step."""
    made = Sampler(model, SamplingConfig(**settings), end)
    made.read(prompt)
    return [made.draw().tokens for _ in range(made.config.max_tokens)]


def test_generation_is_what_the_model_says() -> None:
    """Greedy text from state is the text that full passes give, token by token."""
    model = small(torch.float64)
    ids = list(range(30))
    for (token,) in texts(model, ids, max_tokens=40, temperature=0):
        with torch.no_grad():
            assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
        ids = [*ids, token]


def test_logprobs_are_the_models_own() -> None:
    """Not those after temperature and filters: they would say how the text was drawn, not how likely it is."""
    model = small(torch.float64)
    made = Sampler(model, SamplingConfig(temperature=2.0, top_k=3), -1)
    made.read(range(30))
    drawn = [made.draw() for _ in range(20)]
    ids = torch.tensor([[*range(30), *(d.tokens[0] for d in drawn)]])
    with torch.no_grad():
        logprob = model(ids[:, :-1]).log_softmax(-1).gather(2, ids[:, 1:, None])[0, 29:, 0]
    assert torch.allclose(torch.tensor([d.logprobs[0] for d in drawn]), logprob.float(), atol=1e-5)


def test_the_limit_and_the_end_are_honoured() -> None:
    model, settings = small(), {"max_tokens": 17, "num_samples": 3, "temperature": 2.0, "top_p": 1.0, "seed": 0}
    rows = texts(model, [1], **settings)
    end = rows[4][1]

    def made(end: int, **settings: Any) -> list[Sample]:
        found = [Sample(TextStream(StreamDecoder([b"x"] * 300, {}))) for _ in range(settings["num_samples"])]
        under_way = Sampler(model, SamplingConfig(**settings), end)
        under_way.read([1])
        for _ in stream_samples(under_way, found):
            pass
        for one in found:
            one.close()
        return found

    assert [len(one.tokens) for one in made(-1, **settings)] == [17] * 3
    assert [one.finish_reason for one in made(-1, **settings)] == ["length"] * 3
    stopped = made(end, **settings)[1]
    assert stopped.finish_reason == "end"
    assert stopped.tokens.index(end) == len(stopped.tokens) - 1 <= 4
    assert made(-1, **(settings | {"max_tokens": 0}))[0].tokens == []


def test_the_python_api_streams_the_text_of_the_command() -> None:
    model, tokenizer = small(vocab_size=257), ByteTokenizer()
    pieces = list(generate(model, tokenizer, "A prompt", max_tokens=60, seed=3))
    assert len(pieces) > 5
    assert "".join(pieces) == "".join(generate(model, tokenizer, "A prompt", max_tokens=60, seed=3))
    stop = "".join(pieces)[20:22]
    whole = "".join(pieces)
    stopped = "".join(generate(model, tokenizer, "A prompt", max_tokens=60, seed=3, stop=[stop]))
    assert stopped == whole[: whole.index(stop)]
    with pytest.raises(ValueError, match="one text"):
        next(generate(model, tokenizer, num_samples=2))


def push_all(text: str, stops: list[str]) -> tuple[list[str], str]:
    stream = TextStream(ByteTokenizer().stream(), stops)
    shown = [stream.push(b) for b in text.encode()]
    return shown, "".join(shown) + stream.finish()


def test_stop_strings_never_show_even_in_part() -> None:
    shown, whole = push_all("one END two", ["END"])
    assert whole == "one "
    assert "".join(shown) == "one "
    assert push_all("one EN two", ["END"])[1] == "one EN two"
    assert push_all("abab abac", ["abac", "zz"])[1] == "abab "
    assert push_all("ends with EN", ["END"])[1] == "ends with EN"
    assert push_all("é—x", ["—"])[1] == "é"


def test_half_a_character_is_not_shown() -> None:
    stream = TextStream(ByteTokenizer().stream())
    assert [stream.push(b) for b in "é".encode()] == ["", "é"]
    assert stream.push(0xC3) == ""
    assert stream.finish() == ""  # cut off by the limit, not broken


def test_a_stream_goes_on_where_another_stood() -> None:
    """Text held back for a stop string is shown when no more comes, and must not be shown again in the next session."""
    text = "naïve ENDs, é and ENDing EN"
    data = text.encode()
    for cut in range(len(data) + 1):
        first = TextStream(ByteTokenizer().stream(), ["ENDX"])
        shown = "".join(first.push(b) for b in data[:cut]) + first.finish()
        second = TextStream(ByteTokenizer().stream(), ["ENDX"])
        second.resume(list(data[:cut]), first.shown)
        assert shown + "".join(second.push(b) for b in data[cut:]) + second.finish() == text
