"""Profiles that files define: those that come with the package, then the administrator's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from vgpuctl.api.documents import parse_documents
from vgpuctl.errors import VgpuctlError
from vgpuctl.model.document import ProfileDocument

_log = structlog.get_logger("vgpuctl.profiles")


def load_profiles(directories: Iterable[Path]) -> dict[str, ProfileDocument]:
    """Every profile of `*.yaml` in the directories, by name; a later directory wins.

    A broken file is logged and skipped: one typing error must not keep the daemon from starting.
    """
    found: dict[str, ProfileDocument] = {}
    for directory in directories:
        for path in _files_in(directory):
            try:
                documents = parse_documents(path.read_bytes(), str(path))
            except VgpuctlError as error:
                _log.warning("profile file skipped", file=str(path), reason=error.message)
            except OSError as error:
                _log.warning("profile file skipped", file=str(path), reason=str(error))
            else:
                for document in documents:
                    if isinstance(document, ProfileDocument):
                        found[document.name] = document
                    else:
                        _log.warning("only profiles belong here", file=str(path), document=document.name)
    return found


def _files_in(directory: Path) -> list[Path]:
    try:
        return sorted(directory.glob("*.yaml"))
    except OSError as error:
        _log.warning("profiles cannot be listed", directory=str(directory), reason=str(error))
        return []
