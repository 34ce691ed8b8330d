"""All tests of recall: what is asked for."""

from __future__ import annotations

import pytest

from reformer_cli.evaluation.recall_suite import parse_rounds
from reformer_cli.utils.errors import UserError


def test_numbers_of_rounds() -> None:
    assert parse_rounds("1, 8,full") == [1, 8, "full"]
    for wrong in ("0", "65", "many", "", "1,,2", "²"):
        with pytest.raises(UserError, match="--n-hashes"):
            parse_rounds(wrong)
