"""The response store: nothing that a teacher has answered is ever asked again.

An SQLite file outside DVC's outputs, keyed by a hash of the whole request (model, parameters, prompt). SQLite's journal
makes each answer durable before the next is asked, so that a kill loses at most what is in flight.
"""

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any


class Store:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> Any | None:
        row = self._connection.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(zlib.decompress(row[0])) if row else None

    def put(self, answers: dict[str, Any]) -> None:
        """Store some answers, all or none of them; they are on disk when this returns."""
        rows = [(key, zlib.compress(json.dumps(value).encode())) for key, value in answers.items()]
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def close(self) -> None:
        self._connection.close()
