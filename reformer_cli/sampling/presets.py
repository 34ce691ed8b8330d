"""Named ways to draw. docs/decoding.md has their table. Imports no torch."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "careful": {"temperature": 0.7, "top_p": 0.9, "dry_multiplier": 1.5, "dry_allowed_length": 2},
    "wild": {"temperature": 1.1, "top_p": 1.0, "min_p": 0.03, "xtc_probability": 0.3},
    "verse": {"temperature": 0.9, "top_p": 0.95, "dry_allowed_length": 8},  # refrains
}
