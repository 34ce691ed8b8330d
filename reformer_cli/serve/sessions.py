"""Texts that go on another day under a name: kept in memory while they are warm, and on disk."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from reformer_cli.sampling.generate import Sample
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.sampling.session import load, save
from reformer_cli.serve.texts import Text
from reformer_cli.utils.console import warn

FOLDER = Path("sessions")
MOST_WARM = 16


class Sessions:
    """By (run, name); names are matched against a narrow pattern before they come here (requests.py)."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._warm: OrderedDict[tuple[str, str], tuple[Sampler, Sample]] = OrderedDict()
        self._unsaved: set[tuple[str, str]] = set()
        self.busy: set[tuple[str, str]] = set()

    def path(self, key: tuple[str, str]) -> Path:
        """Where it is kept, also for `reformer generate --session`."""
        return self.folder / key[0] / f"{key[1]}.safetensors"

    def goes_on(self, text: Text) -> bool:
        """Stand where the text's session stands, if there is one. Raises UserError for a damaged one, or another
        model's."""
        if text.ask.session is None:
            return False
        key = (text.ask.run, text.ask.session)
        if key in self._warm:
            sampler, sample = self._warm[key]
            text.sampler.state, text.sampler.pending = sampler.state, sampler.pending
            text.sampler.generators = sampler.generators
            (old,), (new,) = sampler.histories, text.sampler.histories  # which looks at it by the settings of now
            new.extend(old.tokens)
            new.mirostat, new.after = old.mirostat, old.after
            text.sample.stream.decoder = sample.stream.decoder
            return True
        if self.path(key).is_file():
            load(self.path(key), text.sampler, [text.sample])
            text.sample.tokens, text.sample.parts, text.sample.finish_reason = [], [], None
            return True
        return False

    def keep(self, text: Text, whole: bool) -> None:
        """It stands here now; whole: nothing went wrong while it was read or written."""
        if (name := text.ask.session) is None:
            return
        key = (text.ask.run, name)
        self.busy.discard(key)
        if not whole:  # what was saved before stays
            self._warm.pop(key, None)
            self._unsaved.discard(key)
            return
        self._warm[key] = (text.sampler, text.sample)
        self._warm.move_to_end(key)
        self._unsaved.add(key)
        while len(self._warm) > MOST_WARM:
            old = next(iter(self._warm))
            self._save(old)
            del self._warm[old]

    def save(self) -> int:
        """Everything that is not on disk yet; how many those were."""
        return sum(map(self._save, list(self._unsaved)))

    def _save(self, key: tuple[str, str]) -> bool:
        if key not in self._unsaved:
            return False
        sampler, sample = self._warm[key]
        try:
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            save(self.path(key), sampler, [sample], None)
            self._unsaved.discard(key)
        except OSError as error:
            warn(f"session {key[1]} could not be saved: {error.strerror}")
            return False
        return True
