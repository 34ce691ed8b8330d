"""Where on its line a text stands: a learned vector for how many characters the line has so far.

Plain text is broken where the next word would not fit, which is after so many characters and not after so many tokens.
The count is of tokens before alone, so that loss, perplexity and generation have the same one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.decode.program import NativeProgram
from reformer.decode.state import UNKNOWN

LONGEST = 2**20  # characters of a token, at most: a file may say anything


class LinePositions(nn.Module):
    """Row 0 of the weight is for what is not known, row n + 1 for n characters, the last one for more too.

    characters, ends: float [vocab_size], saved with the weights: how many a token adds to its line (less than none
    where it takes back a space that is to come); 1 where a line begins with it or after it, of which `characters` are
    then all that it has. `set_token_widths` sets them; before, every line is unknown.
    """

    characters: Tensor
    ends: Tensor

    def __init__(self, most: int, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(most + 2, d_model))
        self.register_buffer("characters", torch.zeros(vocab_size))
        self.register_buffer("ends", torch.zeros(vocab_size))

    @torch.no_grad()
    def set_token_widths(self, characters: Tensor, ends: Tensor) -> None:
        """What the tokenizer knows of its tokens: characters, and whether a line ends there, each [vocab_size]."""
        self.characters.copy_(characters)
        self.ends.copy_(ends)

    def added(self) -> Tensor:
        """`characters` as int64 [vocab_size]."""
        return self.characters.clamp(-LONGEST, LONGEST).long()

    def forward(self, tokens: Tensor, before: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """Characters on the line after each token: int64 [batch, length], as are the tokens.

        before: int64 [batch], those before the first token; None: unknown. documents: [batch, length]; what begins a
        document does not know how full its line was.
        """
        added = self.added()[tokens]
        begun = self.ends[tokens] > 0.5
        start = torch.where(begun, 0, UNKNOWN)  # where counting begins anew: from here
        if documents is not None:
            other = documents[:, 1:] != documents[:, :-1]
            begun = begun | F.pad(other, (1, 0))
        total = added.cumsum(1)
        last = torch.where(begun, torch.arange(tokens.shape[1], device=tokens.device), -1).cummax(1).values
        from_there = (start - total + added).gather(1, last.clamp_min(0))
        first = tokens.new_full((len(tokens),), UNKNOWN) if before is None else before
        return total + torch.where(last < 0, first[:, None], from_there)

    def rows(self, places: Tensor) -> Tensor:
        """Rows of the weight: places of any shape -> that and [d_model]."""
        return F.embedding(self.index(places), self.weight)

    def index(self, places: Tensor) -> Tensor:
        """Numbers of those rows. A word's first space may have been taken back already: one less than no character."""
        known = places.clamp(0, len(self.weight) - 2) + 1
        return torch.where(places < UNKNOWN // 2, 0, known)

    def record(self, program: NativeProgram) -> tuple[Tensor, Tensor]:
        """In C: the weight [.., d_model], and its row [rows] for each token; `line_position` of states moves on."""
        index = torch.zeros(program.rows, dtype=torch.int64)
        weight = self.weight.detach().contiguous()
        columns = program.table(lambda kept, row: kept.line_position[row])  # type: ignore[index]
        tensors = [index, columns, self.added(), (self.ends > 0.5).long()]
        program.emit("line_position", tensors, [len(weight), UNKNOWN // 2])
        return weight, index
