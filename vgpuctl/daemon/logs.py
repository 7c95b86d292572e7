"""Where the daemon's log goes: the journal under systemd, a terminal, or JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from vgpuctl.daemon import journal

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str) -> None:
    """Set up structlog at `level`; may be called again, also while others log."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: Any
    if journal.is_stderr(os.environ):
        shared += [structlog.processors.format_exc_info, _as_argument]
        writer = journal.Journal(journal.SOCKET)
        factory = lambda *_args: writer  # noqa: E731
    elif sys.stderr.isatty():
        plain = structlog.dev.plain_traceback
        shared.append(structlog.dev.ConsoleRenderer(exception_formatter=plain))
        factory = structlog.PrintLoggerFactory(sys.stderr)
    else:
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        factory = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        # Not cached: a reload may change the level.
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def _as_argument(_logger: Any, _name: str, event: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (dict(event),), {}


class _Forward(logging.Handler):
    """What libraries say through `logging` goes the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it through structlog."""
        log = structlog.get_logger(record.name)
        level = max((each for each in LEVELS.values() if each <= record.levelno), default=logging.DEBUG)
        log.log(level, record.getMessage(), exc_info=record.exc_info)
