"""What `reformer serve` costs and bears: first token, one client, sixteen, and a soak in which each text is compared.

Run: python benchmarks/serve.py [--run starter] [--seconds 600] [--words 100000]. Rows go to benchmarks/results.csv;
--no-record leaves them out. The server is a process of its own on the loopback address, its clients are threads here.
"""

from __future__ import annotations

import argparse
import json
import random
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

    def stream(self, **asked: Any) -> tuple[str, list[float]]:
        """(text, seconds from the request to each piece)."""
        began, times, parts = time.monotonic(), [], []
        with self.client.stream("POST", "/v1/completions", json={"stream": True, **asked}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    found = json.loads(line[6:])
                    if "error" in found:
                        raise RuntimeError(found["error"])
                    parts.append(found["choices"][0]["text"])
                    times.append(time.monotonic() - began)
        return "".join(parts), times

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


def first_token(server: Server, words: int) -> list[Row]:
    """After a 200-word prompt that is new each time; after a document whose state is kept."""
    short = []
    for n in range(7):
        asked = {"prompt": prose(200, seed=n), "max_tokens": 2, "seed": 1, "logprobs": 0}
        short.append(server.stream(**asked)[1][0])
    rows: list[Row] = [("serve", "200-word prompt", "first token", 1000 * statistics.median(short[1:]), "ms")]
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


def streams(server: Server, clients: int, tokens: int) -> tuple[float, float]:
    """(tokens a second of all, longest wait between two tokens of any after its first)."""
    waits: list[float] = []
    made: list[int] = []

    def one(n: int) -> None:
        asked = {"prompt": prose(40, seed=n), "max_tokens": tokens, "seed": n, "logprobs": 0}
        times = server.stream(**asked)[1]
        waits.append(max((b - a for a, b in pairwise(times)), default=0.0))
        made.append(len(times) - 1)

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=[n]) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / (time.monotonic() - began), max(waits)


def generate_speed(run: str, tokens: int) -> float:
    """Tokens a second of `reformer generate`, without its start: of twice as many less as many."""
    seconds = []
    for n in (tokens, 2 * tokens):
        line = [sys.executable, "-m", "reformer_cli", "generate", "--run", run, "--prompt", prose(40), "--max-tokens"]
        began = time.monotonic()
        subprocess.run([*line, str(n), "--seed", "0"], check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    return tokens / (seconds[1] - seconds[0])


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
    rows: list[Row] = [("serve", "start", "to a page", server.started, "s")]
    try:
        rows += first_token(server, arguments.words)
        speeds: dict[int, list[float]] = {1: [], arguments.clients: []}
        waits = []
        for _ in range(arguments.rounds):  # in turns, so that what else runs falls on both
            for clients in speeds:
                speed, wait = streams(server, clients, arguments.tokens)
                speeds[clients].append(speed)
                waits.append(wait)
        one, many = (statistics.median(found) for found in speeds.values())
        rows += [
            ("serve", "1 client", "speed", one, "tokens/s"),
            ("serve", f"{arguments.clients} clients", "speed", many, "tokens/s"),
            ("serve", f"{arguments.clients} clients", "of one client's", many / one, "x"),
            ("serve", f"{arguments.clients} clients", "longest wait", 1000 * max(waits), "ms"),
        ]
        if arguments.rounds:
            alone = generate_speed(arguments.run, arguments.tokens)
            rows += [("reformer generate", "1 text", "speed", alone, "tokens/s")]
            rows += [("serve", "1 client", "of reformer generate", one / alone, "x")]
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
