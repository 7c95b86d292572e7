"""The store: one SQLite file that holds the log and the state that it adds up to."""

from vgpuctl.host.store.sqlite import SqliteStore

__all__ = ["SqliteStore"]
