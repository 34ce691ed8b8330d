"""A prompt from a word processor, for a model of another kind of text."""

from __future__ import annotations

import numpy as np
import pytest
from builders.models import small

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import begin, stream_samples
from reformer_cli.sampling.prompt import matched, prepared
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords

STRAIGHT = train_subwords(['"It\'s late," he said - "go." ' * 60], 300)
CURLY = train_subwords(["“It’s late,” he said — “go.” ‘So’ she did. " * 60], 300)


@pytest.mark.parametrize(
    ("typed", "straight", "curly"),
    [
        ("“It’s late,”", '"It\'s late,"', "“It’s late,”"),
        ('"It\'s late," - "go."', '"It\'s late," - "go."', "“It’s late,” - “go.”"),
        ("\ufeffgo\r\nhe", "go\nhe", "go\nhe"),
    ],
)
def test_marks_are_those_of_the_training_text(typed: str, straight: str, curly: str) -> None:
    """A prompt in curly quotation marks was spelt out in halves of bytes, and gone on with as nothing ever read."""
    assert matched(STRAIGHT, typed) == straight
    assert matched(CURLY, typed) == curly
    assert prepared(STRAIGHT, typed, as_typed=True)[0] == typed


def test_no_prompt_is_the_beginning_of_a_paragraph() -> None:
    """Texts began with a space, in the middle of a scene."""
    shown, prompt = prepared(STRAIGHT, "")
    assert (shown, prompt.text) == ("", "\n\n")
    assert prepared(ByteTokenizer(), "")[1].ids == [10, 10]
    assert prepared(STRAIGHT, "", first=False)[1].ids == []  # a session goes on


@pytest.mark.parametrize("prompt", ["I", "It", "It'", "It's", "It's ", "It's lat", 'It said - "', "go\n", "sai"])
def test_prompt_and_text_are_what_the_tokens_spell(prompt: str) -> None:
    """Wherever a prompt ends, also within the first word, nothing of it is missing or comes twice (`Shhallow`)."""
    model = small(vocab_size=STRAIGHT.vocab_size)
    config = SamplingConfig(max_tokens=8, num_samples=3, seed=1)
    sampler, samples = begin(model, STRAIGHT, prompt, config)
    for _ in stream_samples(sampler, samples):
        pass
    for one, history in zip(samples, sampler.histories, strict=True):
        one.close()
        whole = STRAIGHT.decode(np.array(history.tokens, np.int32))
        assert whole.removeprefix(" ") == prompt + one.text or one.finish_reason == "end"
