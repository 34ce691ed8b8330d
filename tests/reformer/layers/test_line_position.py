"""How many characters a line has so far: the same in a whole pass, in pieces and in C, whatever a file claims."""

from __future__ import annotations

import pytest
import torch
from builders.models import small, tokens
from reformer.decode.state import UNKNOWN
from reformer.layers.line_position import LinePositions
from torch import Tensor


def columns(most: int = 6) -> LinePositions:
    found = small(line_positions=most).line_positions
    assert found is not None
    return found


def counted(one: LinePositions, row: list[int], column: int | None, documents: list[int]) -> list[int | None]:
    """The definition, token by token; None: unknown."""
    found: list[int | None] = []
    for place, token in enumerate(row):
        if place and documents[place] != documents[place - 1]:
            column = None
        if one.ends[token]:
            column = 0
        column = column + int(one.characters[token]) if column is not None else None
        found.append(column)
    return found


@pytest.mark.parametrize("apart", [1, 7, 200])
def test_characters_are_counted_from_the_lines_beginning(apart: int) -> None:
    one, ids = columns(), tokens(200, batch=3)
    documents = (torch.arange(200) // apart).expand(3, -1)
    found = one(ids, torch.tensor([0, 4, UNKNOWN]), documents)
    for row, before in enumerate((0, 4, None)):
        wanted = counted(one, ids[row].tolist(), before, documents[row].tolist())
        assert [None if c < UNKNOWN // 2 else c for c in found[row].tolist()] == wanted


def test_what_is_not_known_has_a_row_of_its_own() -> None:
    one = columns(most=6)
    known = torch.tensor([UNKNOWN, UNKNOWN + 50, -1, 0, 1, 5, 6, 7, 10**6])
    assert one.index(known).tolist() == [0, 0, 1, 1, 2, 6, 7, 7, 7]
    assert len(one.weight) == 8


def test_the_line_goes_on_after_rows_of_other_lengths() -> None:
    """What fills up a row is none of its text."""
    model, ids = small(line_positions=6), tokens(12)
    _, state = model.extend(ids[:, :7], counts=torch.tensor([7, 3]))
    assert state.line_position is not None
    assert model.line_positions is not None
    assert state.line_position.tolist() == [
        model.line_positions(ids)[0, 6].item(),
        model.line_positions(ids)[1, 2].item(),
    ]
    before = state.line_position.clone()
    model.extend(ids[:, :2], state, counts=torch.tensor([0, 0]))
    assert torch.equal(state.line_position, before)
    assert torch.equal(state.select(torch.tensor([1, 1])).line_position, before[[1, 1]])


def test_a_model_that_was_told_nothing_knows_no_line() -> None:
    model = small(line_positions=6)
    assert model.line_positions is not None
    model.line_positions.set_token_widths(torch.zeros(50), torch.zeros(50))
    with torch.no_grad():
        model.line_positions.weight[1:] = torch.nan
        assert bool(model(tokens(40)).isfinite().all())


@pytest.mark.parametrize("claimed", [1e38, -1e38])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_lengths_of_a_hostile_file_lead_nowhere(claimed: float, backend: str) -> None:
    """A row beyond the table would be read from memory that is not the model's."""
    model = small(line_positions=6, backend=backend)
    assert model.line_positions is not None
    model.line_positions.set_token_widths(torch.full((50,), claimed), torch.ones(50))
    state, found = None, []
    for part in tokens(9).split(1, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    whole: Tensor = model(tokens(9))
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-4)
    assert bool(whole.isfinite().all())


def test_a_session_of_anyone_starts_no_count_near_the_end_of_numbers() -> None:
    model = small(line_positions=6)
    _, state = model.extend(tokens(9))
    kept = state.tensors()
    kept["line_position"] = kept["line_position"].clone()
    kept["line_position"][1] = 2**63 - 1
    with pytest.raises(ValueError, match="line_position reaches"):
        model.load_state(kept)
    del kept["line_position"]
    with pytest.raises(ValueError, match="line_position is missing"):
        model.load_state(kept)
