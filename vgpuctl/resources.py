"""Where the files that come with the package lie: beside it when installed, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def _directory(installed: str, checkout: str) -> Path:
    here = _PACKAGE / installed
    return here if here.is_dir() else _PACKAGE.parent / checkout


def profiles_directory() -> Path:
    """`mdev-profiles/`: named profiles, and under `catalog/` what is known of GPU models and types."""
    return _directory("mdev_profiles", "mdev-profiles")


def templates_directory() -> Path:
    """`templates/`: hostdev skeletons and example domains."""
    return _directory("templates", "templates")
