"""OpenAI's API, asked by OpenAI's own client."""

from __future__ import annotations

import openai
import pytest
from builders.servers import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["run"]
    assert client.models.retrieve("run").id == "run"


def test_a_stream_is_the_whole(client: openai.OpenAI) -> None:
    asked = {"model": "run", "prompt": "The rain", "max_tokens": 30, "seed": 3}
    whole = client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert "".join(pieces) == whole.choices[0].text
    assert whole.usage.completion_tokens == 30


def test_every_field(client: openai.OpenAI) -> None:
    found = client.completions.create(
        model="run", prompt=["One", "Two"], max_tokens=5, temperature=0.7, top_p=0.9, n=2, seed=1, logprobs=2,
        echo=True, presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"65": 2}, stop=["zz"],
        extra_body={"top_k": 40, "min_p": 0.01, "dry_multiplier": 1.0},
    )  # fmt: skip
    assert len(found.choices) == 4
    assert found.choices[2].text.startswith("Two")
    logprobs = found.choices[0].logprobs
    assert "".join(logprobs.tokens[:3]) == "One"
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == 8


def test_token_ids_are_a_prompt(client: openai.OpenAI, server: Served) -> None:
    ids = server.post("/tokenize", prompt="The rain")["tokens"]
    assert server.post("/detokenize", tokens=ids)["prompt"] == "The rain"
    asked = {"model": "run", "max_tokens": 10, "seed": 3}
    by_ids = client.completions.create(prompt=ids, **asked)
    assert by_ids.choices[0].text == client.completions.create(prompt="The rain", **asked).choices[0].text


def test_chat_joins_messages(client: openai.OpenAI, server: Served) -> None:
    asked = {"messages": [{"role": "system", "content": "A"}, {"role": "user", "content": "B"}], "model": "run"}
    found = client.chat.completions.create(**asked, max_tokens=9, seed=2)
    assert found.choices[0].message.content == server.text("A\n\nB", max_tokens=9, seed=2)
    chunks = list(client.chat.completions.create(**asked, max_completion_tokens=9, seed=2, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == found.choices[0].message.content


@pytest.mark.parametrize(
    ("asked", "kind", "param"),
    [
        ({"model": "none"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"tempreature": 1}}, openai.BadRequestError, "tempreature"),
        ({"n": 0}, openai.BadRequestError, "n"),
        ({"prompt": [9999]}, openai.BadRequestError, "prompt"),
    ],
)
def test_errors_have_openais_form(client: openai.OpenAI, asked: dict, kind: type, param: str) -> None:
    with pytest.raises(kind) as raised:
        client.completions.create(**({"model": "run", "prompt": "A", "max_tokens": 1} | asked))
    assert raised.value.param == param
