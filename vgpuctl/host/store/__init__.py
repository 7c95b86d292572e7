"""The store: SQLite."""
