"""Optional packages, and what to say where one is not installed."""

from __future__ import annotations

from reformer_cli.utils.errors import UserError


def missing_package(package: str, name: str, extra: str = "formats") -> UserError:
    """name: what cannot be read without the package; extra: of ours, that brings it."""
    return UserError(f"{name} cannot be read without {package}", f"pip install 'reformer-cli[{extra}]'")
