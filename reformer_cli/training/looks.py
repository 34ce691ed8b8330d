"""When a run looks at what it has learnt: validation, sample and checkpoint together take a small share of its time."""

from __future__ import annotations

from reformer_cli.training.state import TrainState

SHARE = 0.05  # of the time, at most
MOST = 10  # looks at a run, where it does not say after how many steps
FORWARD = 3  # tokens are scored while one is trained on, about
BESIDES = 1024  # tokens that are scored while a sample is drawn and a checkpoint written, about
LEAST_TOKENS = 2048  # that a validation works on, those included that are only read before others


class Looks:
    """every: steps from one to the next, as eval.every says; timed: whether the run is one of minutes, whose looks are
    measured. One of steps goes by tokens alone, so that it looks at the same steps whenever it is run again."""

    def __init__(self, every: int | None, timed: bool) -> None:
        self.every, self.timed = every, timed

    def due(self, progress: TrainState, share: float) -> bool:
        """share: of the run that is done."""
        if share >= 1.0:
            return False
        if self.every:
            return progress.step % self.every == 0
        if share < 1 / MOST:
            return False  # nor is anything known of the run's length
        count = self._count(progress, share)
        return int(share * count + 1e-9) > int(progress.looked_at * count + 1e-9)

    def tokens(self, progress: TrainState, share: float) -> int:
        """That a validation works on, the same number throughout a run."""
        if not progress.look_tokens:
            progress.look_tokens = max(LEAST_TOKENS, int(self._allowance(progress, share) / MOST) - BESIDES)
        return progress.look_tokens

    def took(self, progress: TrainState, share: float, seconds: float) -> None:
        """A look has been taken, and so long it took."""
        progress.looked_at = max(progress.looked_at, share)
        progress.looks += 1
        progress.looking += seconds

    def _count(self, progress: TrainState, share: float) -> int:
        """Looks in the whole run."""
        if self.timed and progress.looks:
            affordable = SHARE * progress.seconds / max(1e-9, share) / max(1e-9, progress.looking / progress.looks)
        else:
            affordable = self._allowance(progress, share) / (self.tokens(progress, share) + BESIDES)
        return max(1, min(MOST, int(affordable)))

    @staticmethod
    def _allowance(progress: TrainState, share: float) -> float:
        """Tokens that can be scored in all."""
        return SHARE * FORWARD * progress.tokens / max(1e-9, share)
