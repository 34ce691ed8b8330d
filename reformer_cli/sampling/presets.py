"""Named ways to draw. docs/decoding.md has their table. Imports no torch."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "careful": {"temperature": 0.6, "top_p": 0.9, "min_p": 0.02},
    "wild": {"temperature": 1.1, "top_p": 1.0, "min_p": 0.05, "xtc_probability": 0.3},
    "verse": {"temperature": 0.9, "top_p": 0.95, "dry_multiplier": 0.8, "dry_allowed_length": 8},  # refrains
}
