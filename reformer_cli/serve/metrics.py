"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reformer_cli.serve.texts import Text

FIRST = (0.05, 0.1, 0.15, 0.2, 0.5, 1, 2, 5, 10, 60)  # seconds


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = known = CollectorRegistry()
        self.tokens = Counter("reformer_tokens", "Tokens that were drawn", registry=known)
        self.prompt_tokens = Counter("reformer_prompt_tokens", "Tokens of prompts", registry=known)
        self.texts = Counter("reformer_texts", "Texts, by why they ended", ["reason"], registry=known)
        self.answers = Counter("reformer_answers", "Answers, by HTTP status", ["status"], registry=known)
        self.places = Gauge("reformer_places_used", "Texts that are read or written now", registry=known)
        self.queue = Gauge("reformer_queue", "Texts that wait for a place", registry=known)
        self.first = Histogram("reformer_first_token_seconds", "To the first token", buckets=FIRST, registry=known)
        self._usual = 1.0

    def ended(self, text: Text, error: Exception | None) -> None:
        """A text left."""
        reason = "error" if error is not None else "cancelled" if text.cancelled else "done"
        self.texts.labels(reason).inc()
        self.prompt_tokens.inc(len(text.ids))
        if text.first is not None:
            self.first.observe(text.first - text.began)
        self._usual += 0.1 * (time.monotonic() - text.began - self._usual)

    def usual_seconds(self) -> float:
        """That a text took lately."""
        return self._usual

    def page(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)
