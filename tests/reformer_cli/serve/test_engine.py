"""Texts that are made together, and what becomes of those that leave, wait or go on another day."""

from __future__ import annotations

import gc
import threading
import time
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from builders.servers import Served, make_run, served

from reformer_cli.sampling.generate import generate
from reformer_cli.sampling.word_rules import NoLongCopies
from reformer_cli.serve.requests import Completion
from reformer_cli.serve.texts import Text

ASKED = [
    {"prompt": "", "seed": 1, "max_tokens": 40},
    {"prompt": "The rain fell all night. " * 30, "seed": 2, "max_tokens": 25, "temperature": 0.7},
    {"prompt": "Noon", "seed": 3, "max_tokens": 60, "top_k": 30, "presence_penalty": 0.5},
    {"prompt": "A cat sat on a mat. " * 9, "seed": 4, "max_tokens": 33, "mirostat": 2},
    {"prompt": "The rain fell all night. " * 30, "seed": 5, "max_tokens": 25, "logit_bias": {"101": 3}},
    {"prompt": "Calm", "seed": 6, "max_tokens": 50, "temperature": 0},
]
ENDLESS = {"prompt": "A", "max_tokens": 100_000, "dry_multiplier": 0, "logit_bias": {"256": -100}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("served"), n_hashes=2, n_buckets=(4,), far_buckets=24) as found:
        yield found


def forget(server: Served) -> None:
    """What was read before is not known any more."""
    loaded = server.service.library.get("run")
    loaded.prefixes = type(loaded.prefixes)(loaded.model)


def places(server: Served, wanted: int, seconds: float = 20.0) -> bool:
    """Whether so many are used soon: a text that goes from reading to writing is in neither for a moment."""
    end = time.monotonic() + seconds
    while server.client.get("/health").json()["places_used"] != wanted:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def idle(server: Served) -> bool:
    return places(server, 0)


def test_together_as_alone(server: Served) -> None:
    alone = []
    for asked in ASKED:
        forget(server)
        alone.append(server.text(**asked))
    forget(server)
    together = [""] * len(ASKED)

    def make(n: int) -> None:
        together[n] = server.text(**ASKED[n])

    threads = [threading.Thread(target=make, args=[n]) for n in range(len(ASKED))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_seeds_text_is_that_of_generate(server: Served) -> None:
    """Prompts of at most 64 tokens, which both read at once."""
    loaded = server.service.library.get("run")
    for asked in ({"seed": 1}, {"seed": 2, "temperature": 1.5}, {"seed": 3, "mirostat": 2}):
        asked |= {"max_tokens": 60}
        text = "".join(generate(loaded.model, loaded.tokenizer, "The rain fell", **asked))
        assert server.text("The rain fell", **asked) == text


def test_samples_of_a_request_are_those_of_its_seeds(server: Served) -> None:
    prompt = "A cat sat on a mat. " * 40
    found = server.post("/v1/completions", prompt=prompt, seed=7, n=3, max_tokens=20)
    for k, choice in enumerate(found["choices"]):
        forget(server)
        assert choice["text"] == server.text(prompt, seed=7 + k, max_tokens=20)


@pytest.mark.parametrize("known", [100, 520, 700, 1100])
def test_a_known_beginning_changes_no_text(server: Served, known: int) -> None:
    """Also where a text was written after it, which is taken back."""
    book = "".join(f"{n} cats sat on {n * n} mats. " for n in range(60))
    whole = book[: known + 37]
    forget(server)
    expected = server.text(whole, seed=1, max_tokens=30)
    forget(server)
    server.text(book[:known], seed=2, max_tokens=50)
    assert server.text(whole, seed=1, max_tokens=30) == expected
    assert server.text(whole, seed=1, max_tokens=30) == expected
    assert server.service.library.get("run").prefixes.hits >= 1


def test_who_hangs_up_leaves_his_place(server: Served) -> None:
    asked = ENDLESS | {"stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked, timeout=120) as answer:
        lines = answer.iter_lines()  # kept: dropped, it would close the stream
        next(lines)
        assert places(server, 1)
    assert idle(server)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json={**asked, "stream": False}, timeout=0.5)
    assert idle(server)


def test_more_than_can_wait_are_told_when_to_come_again(server: Served) -> None:
    asked = ENDLESS | {"n": 12}  # four places, and eight that wait
    with httpx.stream("POST", f"{server.url}/v1/completions", json={**asked, "stream": True}, timeout=120) as answer:
        lines = answer.iter_lines()  # kept: dropped, it would close the stream
        next(lines)
        refused = server.client.post("/v1/completions", json=asked)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
    assert idle(server)


def test_a_texts_state_goes_with_it(server: Served) -> None:
    """It waited for the garbage collector, which counts objects and not their size: 3 GiB in a minute."""

    def states() -> int:
        return sum(type(one).__name__ in ("DecodingState", "Kept", "BucketCache") for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        for n in range(3):
            server.text(f"{n} cats", max_tokens=4)
        before = states()
        for n in range(12):
            server.post("/v1/completions", prompt=f"{n} dogs", max_tokens=4, n=1 + n % 2)
        assert states() <= before + 6  # those of one more text at once
    finally:
        gc.enable()


def test_a_text_that_takes_too_long_ends(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service.engine, "time_limit", 0.3)
    found = server.post("/v1/completions", **ENDLESS)
    assert found["choices"][0]["finish_reason"] == "length"
    assert 0 < found["usage"]["completion_tokens"] < 100_000


def test_a_fault_of_one_is_not_that_of_others(server: Served) -> None:
    answers = {}

    def make(n: int, **asked: object) -> None:
        answers[n] = server.client.post("/v1/completions", json=asked)

    good = {"prompt": "The rain", "seed": 9, "max_tokens": 40}
    threads = [threading.Thread(target=make, args=[0], kwargs=good)]
    threads += [threading.Thread(target=make, args=[1], kwargs={"prompt": "A", "logit_bias": {"9999": 1}})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[1].status_code == 400
    assert answers[0].json()["choices"][0]["text"] == server.text(**good)


class Broken(NoLongCopies):
    """A rule whose index was there when the text began."""

    last, asked = 3, 0

    def __init__(self) -> None:
        pass

    def allows(self, before, word) -> bool:
        self.asked += 1
        if self.asked > 2:
            raise OSError("gone")
        return True

    allows_beginning = allows


def test_a_fault_while_drawing_ends_one_text(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = server.service.library.get("run")
    monkeypatch.setattr(loaded, "rules", lambda run, config: [Broken()] if config.max_copy else [])
    asked = [ENDLESS | {"seed": n, "max_tokens": 80} for n in range(3)]
    alone = [server.text(**one) for one in asked]
    answers = {}

    def make(n: int) -> None:
        answers[n] = server.client.post("/v1/completions", json=asked[n] | ({"max_copy": 3} if n == 1 else {}))

    threads = [threading.Thread(target=make, args=[n]) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[1].status_code == 500
    assert [answers[n].json()["choices"][0]["text"] for n in (0, 2)] == [alone[0], alone[2]]
    assert idle(server)


def test_rules_that_take_long_to_make_hold_up_nobody(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of the training text was made on the thread that computes for all."""
    loaded, known, answers = server.service.library.get("run"), threading.Event(), []
    monkeypatch.setattr(loaded, "rules", lambda run, config: [] if known.wait(20) else None)
    asked = {"prompt": "A", "seed": 1, "max_tokens": 9}
    thread = threading.Thread(target=lambda: answers.append(server.text(**asked, max_copy=3)))
    thread.start()
    assert places(server, 1)
    assert server.text(**asked)
    assert not answers
    known.set()
    thread.join()
    assert answers == [server.text(**asked)]


def test_texts_that_cannot_be_decoded_together_take_turns(server: Served) -> None:
    """Each gets a token before any gets its next."""
    make_run(Path("runs/full"), attn_layers=("full",), shorten_factor=1)
    order, ended = [], threading.Semaphore(0)

    def tell(n: int):
        return lambda event: order.append(n) if event.token is not None else ended.release()

    body = Completion(**(ENDLESS | {"max_tokens": 12, "model": "full", "n": 3}))
    texts = [Text(ask, tell(n)) for n, ask in enumerate(server.service.asks(body, ["A"]))]
    server.service.engine.submit(texts)
    assert all(ended.acquire(timeout=60) for _ in texts)
    begun, left = max(map(order.index, range(3))), min(len(order) - order[::-1].index(n) for n in range(3))
    shared = order[begun:left]
    assert len(shared) > 20
    assert all(a != b for a, b in pairwise(shared))


def test_a_session_goes_on_from_memory_as_from_disk(server: Served) -> None:
    texts, asked = [], {"logit_bias": ENDLESS["logit_bias"], "max_tokens": 20}
    for name in ("warm", "cold"):
        first = server.text("The rain", session=name, seed=5, **asked)
        if name == "cold":
            assert server.service.sessions.save() == 2
            server.service.sessions._warm.clear()
            assert server.service.sessions.path(("run", "cold")).is_file()
        texts.append([first, server.text("", session=name, **asked), server.text("And", session=name, **asked)])
    assert texts[0] == texts[1]
    whole = server.text("The rain", seed=5, **(asked | {"max_tokens": 40}))
    assert whole == texts[0][0] + texts[0][1]


def test_a_session_of_a_long_text_goes_on_from_disk_by_other_settings(server: Served) -> None:
    """Of a text longer than filters look back the rest was not kept, and the file could not be read; from memory, DRY
    and n-grams were those of the request before."""
    prompt, texts = "".join(f"{n} cats sat. " for n in range(500)), []
    for name in ("warm2", "cold2"):
        server.text(prompt, session=name, seed=5, max_tokens=9, dry_multiplier=0)
        if name == "cold2":
            server.service.sessions.save()
            server.service.sessions._warm.clear()
        again = {"no_repeat_ngram_size": 2, "temperature": 0.3, "dry_allowed_length": 2}
        texts.append(server.text("", session=name, max_tokens=60, **again))
    assert texts[0] == texts[1]


def test_a_session_is_of_one_request_at_a_time(server: Served) -> None:
    asked = ENDLESS | {"session": "busy", "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked, timeout=120) as answer:
        lines = answer.iter_lines()  # kept: dropped, it would close the stream
        next(lines)
        assert server.client.post("/v1/completions", json={"session": "busy"}).status_code == 409
    assert idle(server)
    assert server.text("", session="busy", max_tokens=3)


def test_who_hangs_up_during_other_work_stops_nobody(server: Served) -> None:
    """Cancelled between the last slice and its result: that ended the thread which computes for everybody."""
    for fails in (False, True):
        known, futures = threading.Event(), []

        def work(fails: bool = fails, known: threading.Event = known, futures: list = futures):
            yield known.wait(5)
            futures[0].cancel()
            if fails:
                raise ValueError

        futures.append(server.service.engine.call(work()))
        known.set()
        assert server.text("A", max_tokens=3)
        assert futures[0].cancelled()
