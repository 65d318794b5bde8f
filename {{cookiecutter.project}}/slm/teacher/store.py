"""The response store: a request that a teacher has answered is never sent again.

It is an append-only SQLite file outside DVC's outputs. Its key is a hash of the whole request (address,
model, parameters, prompt). When `put` returns, the answer is on disk and survives a kill. The store keeps
the cost of each answer. For each run and batch it keeps what was asked and never answered. Requests under way
in a batch are known by their key, so that another run waits for the same batch.
"""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import RESUME

STORE = RESUME / "answers.sqlite"
PAID = ("time", "run", "model", "tokens_in", "tokens_out", "usd", "seconds")
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL, time TEXT, run TEXT,
    model TEXT, tokens_in INTEGER, tokens_out INTEGER, usd REAL, seconds REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, started TEXT NOT NULL, hits INTEGER NOT NULL DEFAULT 0,
    unanswered INTEGER NOT NULL DEFAULT 0, unanswered_tokens INTEGER NOT NULL DEFAULT 0,
    unanswered_usd REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS batches (file TEXT PRIMARY KEY, batch TEXT, run TEXT NOT NULL,
    started TEXT NOT NULL, ended TEXT, unanswered INTEGER NOT NULL, unanswered_tokens INTEGER NOT NULL,
    unanswered_usd REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batched (key TEXT PRIMARY KEY, file TEXT NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, usd REAL NOT NULL) WITHOUT ROWID;
"""
INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass
class Spent:
    """What was paid for, or may have been."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compressed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def uncompressed(blob: bytes) -> Any:
    return json.loads(zlib.decompress(blob))


class Store:
    """One writer and one reader connection, so that looking up does not wait for the disk."""

    def __init__(self, path: Path = STORE) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run = f"{now()}-{os.getpid()}"
        self._writer = self._connect(path)
        self._writer.executescript(SCHEMA)
        known = {row[1] for row in self._writer.execute("PRAGMA table_info(answers)")}
        for name in PAID:  # a store from before answers had a price
            if name not in known:
                self._writer.execute(f"ALTER TABLE answers ADD COLUMN {name}")
        self._reader = self._connect(path)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        # Only one thread at a time uses a connection; autocommit: transactions are opened by hand, and short.
        connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit is on disk, also when the power fails
        # KiB: keys are random, and so are the pages that an answer touches
        connection.execute("PRAGMA cache_size=-16000")
        return connection

    @contextmanager
    def _all_or_nothing(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def has(self, key: str) -> bool:
        return self._reader.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def get(self, key: str) -> Any:
        row = self._reader.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return uncompressed(row[0]) if row else None

    def put(self, answers: dict[str, Any], unanswered: Spent | None = None, hits: int = 0) -> None:
        """Store some answers, all or none of them; they are on disk when this returns.

        unanswered: what this run has asked and has no answer to, so that a budget counts it also after a
        kill; None: as before.
        """
        with self._all_or_nothing() as writer:
            writer.executemany(INSERT, (self._row(key, value) for key, value in answers.items()))
            if unanswered or hits:
                writer.execute("INSERT OR IGNORE INTO runs (run, started) VALUES (?, ?)", (self.run, now()))
                writer.execute("UPDATE runs SET hits = hits + ? WHERE run = ?", (hits, self.run))
            if unanswered:
                writer.execute(
                    "UPDATE runs SET unanswered = ?, unanswered_tokens = ?, unanswered_usd = ? WHERE run = ?",
                    (unanswered.requests, unanswered.tokens, unanswered.usd, self.run),
                )

    def unanswered(self) -> Spent:
        """What this run has asked and has no answer to, so far."""
        query = "SELECT unanswered, unanswered_tokens, unanswered_usd FROM runs WHERE run = ?"
        row = self._reader.execute(query, (self.run,)).fetchone()
        return Spent(*row) if row else Spent()

    def _row(self, key: str, value: dict[str, Any]) -> tuple[Any, ...]:
        usage = value.get("usage") or {}
        tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        return (
            key,
            compressed(value),
            now(),
            self.run,
            value.get("model"),
            *tokens,
            value.get("usd"),
            value.get("seconds"),
        )

    def begin_batch(self, file: str, worst: dict[str, tuple[int, int, float]]) -> None:
        """Before a batch of an uploaded file is asked for: its requests, each with its worst-case tokens in
        and out and USD, are under way.
        """
        tokens, usd = sum(i + o for i, o, _ in worst.values()), sum(u for _, _, u in worst.values())
        with self._all_or_nothing() as writer:
            row = (file, None, self.run, now(), None, len(worst), tokens, usd)
            writer.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            writer.executemany(
                "INSERT INTO batched VALUES (?, ?, ?, ?, ?)",
                ((key, file, *cost) for key, cost in worst.items()),
            )

    def name_batch(self, file: str, batch: str) -> None:
        self._writer.execute("UPDATE batches SET batch = ? WHERE file = ?", (batch, file))

    def batch(self, file: str) -> str | None:
        """The endpoint's name for the batch of a file; None: killed before it was known."""
        return self._reader.execute("SELECT batch FROM batches WHERE file = ?", (file,)).fetchone()[0]

    def under_way(self, key: str) -> str | None:
        """The file in whose batch this request was sent, if that has not ended yet."""
        row = self._reader.execute("SELECT file FROM batched WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def worst_of(self, file: str) -> dict[str, tuple[int, int, float]]:
        rows = self._reader.execute(
            "SELECT key, tokens_in, tokens_out, usd FROM batched WHERE file = ?", (file,)
        )
        return {key: (tokens_in, tokens_out, usd) for key, tokens_in, tokens_out, usd in rows}

    def end_batch(self, file: str, outcomes: Iterable[tuple[str, dict[str, Any] | None]]) -> None:
        """Store the outcomes of a batch, all or nothing: an answer, or None for a request that got no answer
        and cost nothing.

        An outcome that belongs to another batch, or comes twice, is ignored. A request without an outcome may
        have been billed, and counts as its worst case.
        """
        with self._all_or_nothing() as writer:
            for key, answer in outcomes:
                new = writer.execute("DELETE FROM batched WHERE key = ? AND file = ?", (key, file)).rowcount
                if new and answer is not None:
                    writer.execute(INSERT, self._row(key, answer))
            left = (
                "SELECT count(*), coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(usd), 0) FROM "
                "batched WHERE file = ?"
            )
            lost = writer.execute(left, (file,)).fetchone()
            writer.execute("DELETE FROM batched WHERE file = ?", (file,))
            writer.execute(
                "UPDATE batches SET ended = ?, unanswered = ?, unanswered_tokens = ?, unanswered_usd = ? "
                "WHERE file = ?",
                (now(), *lost, file),
            )

    def forget_batch(self, name: str) -> int:
        """End a batch that is gone, by the endpoint's name for it or its file: how many requests count as
        paid and are asked again.
        """
        row = self._reader.execute(
            "SELECT file FROM batches WHERE ended IS NULL AND ? IN (batch, file)", (name,)
        ).fetchone()
        if row is None:
            raise UserError(
                f"{STORE}: no batch {name[:200]!r} is under way; copy its name from the message that named it"
            )
        self.end_batch(row[0], ())
        return self._reader.execute("SELECT unanswered FROM batches WHERE file = ?", row).fetchone()[0]

    def spent(self) -> Spent:
        """Over all runs: answers, and requests without an answer."""
        paid = (
            "SELECT count(*), coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(usd), 0) FROM answers "
            "WHERE model IS NOT NULL"
        )
        lost = (
            "SELECT coalesce(sum(unanswered), 0), coalesce(sum(unanswered_tokens), 0), "
            "coalesce(sum(unanswered_usd), 0) FROM "
        )
        parts = [
            self._reader.execute(query).fetchone() for query in (paid, f"{lost} runs", f"{lost} batches")
        ]
        return Spent(*(sum(column) for column in zip(*parts, strict=True)))

    def means(self, model: str) -> tuple[float | None, float | None]:
        """Mean tokens and seconds of an answer so far, for an estimate; None if no answer of this model has
        any (in batches: no seconds).
        """
        query = (
            "SELECT avg(tokens_out), avg(seconds) FROM (SELECT tokens_out, seconds FROM answers WHERE "
            "model = ? LIMIT 1000)"
        )
        return self._reader.execute(query, (model,)).fetchone()

    def ledger(self) -> list[tuple[Any, ...]]:
        """By day and run: day, run, model, answers, tokens in, tokens out, USD, seconds from first to last
        answer, cache hits, unanswered (or still under way in a batch).
        """
        return self._reader.execute(
            """
            WITH a AS (
                SELECT run, min(time) AS first, group_concat(DISTINCT model) AS models, count(*) AS n,
                    sum(tokens_in) AS t_in, sum(tokens_out) AS t_out, sum(usd) AS usd,
                    (julianday(max(time)) - julianday(min(time))) * 86400 + coalesce(max(seconds), 0) AS span
                FROM answers WHERE model IS NOT NULL GROUP BY run
            ),
            b AS (
                SELECT run, min(started) AS started, sum(unanswered) AS lost FROM batches GROUP BY run
            ),
            every AS (SELECT run FROM a UNION SELECT run FROM runs UNION SELECT run FROM b)
            SELECT substr(coalesce(a.first, r.started, b.started), 1, 10), every.run,
                coalesce(a.models, ''), coalesce(a.n, 0), coalesce(a.t_in, 0), coalesce(a.t_out, 0), a.usd,
                coalesce(a.span, 0), coalesce(r.hits, 0),
                coalesce(r.unanswered, 0) + coalesce(b.lost, 0)
            FROM every
            LEFT JOIN a ON a.run = every.run
            LEFT JOIN runs AS r ON r.run = every.run
            LEFT JOIN b ON b.run = every.run
            ORDER BY 1, 2
            """
        ).fetchall()

    def paid(self) -> Iterator[dict[str, Any]]:
        """Every paid answer, in the order of the keys."""
        for key, blob, *rest in self._reader.execute(
            f"SELECT key, value, {', '.join(PAID)} FROM answers WHERE model IS NOT NULL ORDER BY key"
        ):
            yield {"key": key, **dict(zip(PAID, rest, strict=True)), "value": uncompressed(blob)}

    def add(self, rows: Iterator[dict[str, Any]]) -> int:
        """Answers of another store; how many were new."""
        with self._all_or_nothing() as writer:
            before = writer.total_changes
            writer.executemany(
                INSERT,
                ((row["key"], compressed(row["value"]), *(row[name] for name in PAID)) for row in rows),
            )
            return writer.total_changes - before

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
