"""What `reformer serve` costs and bears: first token, one client, sixteen, and a soak in which each text is compared.

Run: python benchmarks/serve.py [--run starter] [--seconds 600] [--words 100000]. Rows go to benchmarks/results.csv;
--no-record leaves them out. The server is a process of its own on the loopback address, its clients are threads here.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
from record import append

WORDS = [
    "the",
    "old",
    "road",
    "went",
    "down",
    "to",
    "a",
    "river",
    "and",
    "she",
    "said",
    "nothing",
    "while",
    "rain",
    "fell",
]
RUBBISH = [b"", b"{", b'{"prompt": 5}', b'{"temperature": -1}', b"\xff" * 99, b'{"model": "../.."}', b"[" * 5000]


def prose(words: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    lines = (" ".join(draw.choices(WORDS, k=draw.randint(4, 14))).capitalize() + ".\n" for _ in range(words))
    found: list[str] = []
    while len(found) < words:
        found += next(lines).split(" ")
    return " ".join(found[:words])


class Server:
    """The program, started as users start it."""

    def __init__(self, run: str, *options: str) -> None:
        line = [sys.executable, "-m", "reformer_cli", "serve", "--run", run, "--port", "0", *options]
        self.folder = tempfile.TemporaryDirectory()
        began = time.monotonic()
        where = str(Path(run).resolve()) if Path(run).exists() else run
        line[line.index("--run") + 1] = where
        self.process = subprocess.Popen(line, cwd=self.folder.name, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().rstrip("/")
        self.client = httpx.Client(base_url=self.url, timeout=600)
        self.client.get("/").raise_for_status()
        self.started = time.monotonic() - began
        self.usage = psutil.Process(self.process.pid)

    def stream(self, **asked: Any) -> tuple[int, list[float]]:
        """(tokens, seconds from the request to each piece, of one or more); logprobs must be asked for."""
        began, times, made = time.monotonic(), [], 0
        with self.client.stream("POST", "/v1/completions", json={"stream": True, **asked}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    found = json.loads(line[6:])
                    if "error" in found:
                        raise RuntimeError(found["error"])
                    made += len(found["choices"][0]["logprobs"]["tokens"])
                    times.append(time.monotonic() - began)
        return made, times

    def text(self, client: httpx.Client, asked: dict[str, Any]) -> str:
        answer = client.post("/v1/completions", json=asked)
        while answer.status_code == 429:
            time.sleep(0.05 * random.random())
            answer = client.post("/v1/completions", json=asked)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["text"])

    def stop(self) -> None:
        self.process.send_signal(2)
        self.process.wait(60)
        self.folder.cleanup()


Row = tuple[str, str, str, float, str]
LOADED = """
import sys
from pathlib import Path
from reformer_cli.runs.run import Run
from reformer_cli.runs.starter import starter
Run.open(starter() if sys.argv[1] == "starter" else Path(sys.argv[1])).load_model("cpu")
"""


def start(server: Server, run: str) -> list[Row]:
    """To a page, and what of that another program takes to have the model, Python's start included."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", LOADED, run], check=True)
    loaded = time.monotonic() - began
    later = server.started - loaded
    return [("serve", "start", "to a page", server.started, "s"), ("serve", "model loaded", "to a page", later, "s")]


def first_token(server: Server, words: int) -> list[Row]:
    """After a 200-word prompt that is new each time; after a document whose state is kept."""
    short, before = [], sum(server.usage.cpu_times()[:2])
    for n in range(7):
        asked = {"prompt": prose(200, seed=n), "max_tokens": 2, "seed": 1, "logprobs": 0}
        time.sleep(0.3)  # a writer reads before going on
        short.append(server.stream(**asked)[1][0])
    rows: list[Row] = [("serve", "200-word prompt", "first token", 1000 * statistics.median(short[1:]), "ms")]
    spent = (sum(server.usage.cpu_times()[:2]) - before) / 7
    rows.append(("serve", "200-word prompt and two tokens", "processor time", 1000 * spent, "ms"))
    if words:
        text = prose(words, seed=99)
        server.client.post("/api/documents/long", json={"text": text}).raise_for_status()
        asked = {"document": "long", "max_tokens": 20, "logprobs": 0}
        rows.append(("serve", f"{words:,} words, read", "first token", 1000 * server.stream(**asked)[1][0], "ms"))
        later = []
        for n in range(5):
            more = {"from": len(text), "text": prose(30, seed=n)}
            server.client.post("/api/documents/long", json=more).raise_for_status()
            later.append(server.stream(**asked)[1][0])
        kept = statistics.median(later)
        rows.append(("serve", f"{words:,} words, state kept, 30 new", "first token", 1000 * kept, "ms"))
        server.client.delete("/api/documents/long")
    return rows


def streams(server: Server, clients: int, tokens: int) -> tuple[float, float, float]:
    """(tokens a second of all, and of processor time, longest wait between two tokens of any after its first)."""
    waits: list[float] = []
    made: list[int] = []

    def one(n: int) -> None:
        asked = {"prompt": prose(40, seed=n), "max_tokens": tokens, "seed": n, "logprobs": 0}
        n, times = server.stream(**asked)
        waits.append(max((b - a for a, b in pairwise(times)), default=0.0))
        made.append(n)

    began, before = time.monotonic(), sum(server.usage.cpu_times()[:2])
    threads = [threading.Thread(target=one, args=[n]) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = sum(server.usage.cpu_times()[:2]) - before
    return sum(made) / (time.monotonic() - began), sum(made) / spent, max(waits)


def generate_speed(run: str, tokens: int) -> tuple[float, float]:
    """Tokens a second of `reformer generate`, as it says; of processor time, without its start: by twice as many."""
    said, made, spent = [], [], []
    for n in (tokens, 3 * tokens):
        line = [sys.executable, "-m", "reformer_cli", "generate", "--run", run, "--prompt", prose(40), "--max-tokens"]
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        line += [str(n), "--seed", "1", "--json"]
        found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        spent.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before)
        said.append(found["tokens_per_second"])
        made.append(len(found["tokens"]))
    return statistics.median(said), (made[1] - made[0]) / max(1e-3, spent[1] - spent[0])


def soak(server: Server, seconds: float, clients: int) -> list[Row]:
    """Clients join, leave, hang up and send rubbish; each whole text is compared with the same seed alone."""
    end, faults, texts, sizes = time.monotonic() + seconds, list[str](), {}, list[float]()
    lock = threading.Lock()

    def one(n: int) -> None:
        draw = random.Random(n)
        with httpx.Client(base_url=server.url, timeout=600) as client:
            while time.monotonic() < end:
                asked: dict[str, Any] = {
                    "prompt": prose(draw.randint(0, 300), draw.randrange(50)),
                    "seed": draw.randrange(20),
                }
                asked |= {"max_tokens": draw.randint(1, 120), "temperature": draw.choice([0, 0.7, 0.9])}
                try:
                    match draw.randrange(8):
                        case 0:  # hangs up
                            with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
                                next(answer.iter_lines(), None)
                        case 1:
                            body, kind = draw.choice(RUBBISH), {"content-type": "application/json"}
                            status = client.post("/v1/completions", content=body, headers=kind).status_code
                            if not 400 <= status < 500:
                                faults.append(f"{body!r}: {status}")
                        case _:
                            text = server.text(client, asked)
                            with lock:
                                if texts.setdefault(json.dumps(asked), text) != text:
                                    faults.append(f"{asked} differs from before")
                except Exception as error:
                    faults.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=[n]) for n in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        sizes.append(server.usage.memory_info().rss)
    alone = 0
    for asked, text in random.Random(0).sample(sorted(texts.items()), min(len(texts), max(20, len(texts) // 10))):
        alone += 1
        if server.text(server.client, json.loads(asked)) != text:
            faults.append(f"{asked} differs from alone")
    print("\n".join(faults[:20]))
    third = max(1, len(sizes) // 3)
    growth = statistics.median(sizes[-third:]) / statistics.median(sizes[third : 2 * third] or sizes) - 1
    case = f"{clients} clients, {seconds:.0f} s"
    return [
        ("serve", case, "texts", len(texts), ""), ("serve", case, "compared with alone", alone, ""),
        ("serve", case, "faults", len(faults), ""), ("serve", case, "memory of the last third", 100 * growth, "% more"),
        ("serve", case, "memory", max(sizes) / 2**20, "MiB"),
    ]  # fmt: skip


def speeds(measured: dict[str, list[tuple[float, float, float]]], many: str, alone: tuple[float, float]) -> list[Row]:
    """Rows of `streams` and `generate_speed`, by the clock and by processor time."""
    rows: list[Row] = [("serve", many, "longest wait", 1000 * max(wait for *_, wait in measured[many]), "ms")]
    for n, unit in enumerate(("tokens/s", "tokens/processor s")):
        medians = {case: statistics.median(one[n] for one in found) for case, found in measured.items()}
        rows += [("serve", case, "speed", value, unit) for case, value in medians.items()]
        rows += [("reformer generate", "1 text", "speed", alone[n], unit)]
        rows += [("serve", many, "of one client's", medians[many] / medians["1 client"], f"x, {unit}")]
        rows += [("serve", "1 client", "of reformer generate", medians["1 client"] / alone[n], f"x, {unit}")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="starter")
    parser.add_argument("--seconds", type=float, default=600, help="of the soak; 0: none")
    parser.add_argument("--words", type=int, default=100_000, help="of the document whose state is kept; 0: none")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    server = Server(arguments.run)
    rows: list[Row] = []
    try:
        rows += start(server, arguments.run)
        rows += first_token(server, arguments.words)
        many = f"{arguments.clients} clients"
        measured: dict[str, list[tuple[float, float, float]]] = {"1 client": [], many: []}
        for _ in range(arguments.rounds):  # in turns, so that what else runs falls on both
            for case, found in measured.items():
                found.append(streams(server, int(case.split()[0]), arguments.tokens))
        if arguments.rounds:
            rows += speeds(measured, many, generate_speed(arguments.run, arguments.tokens))
        if arguments.seconds:
            rows += soak(server, arguments.seconds, arguments.clients)
    finally:
        server.stop()
    for system, case, measure, value, unit in rows:
        print(f"{system:20} {case:36} {measure:28} {value:12,.2f} {unit}")
    if not arguments.no_record:
        append("cpu", "serve", rows)


if __name__ == "__main__":
    main()
