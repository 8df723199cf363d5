"""The demo's database: users, posts, comments and likes in one WAL-mode file.

Row contents are computed from row numbers, without a random generator: two files of one scale hold the same rows, in
any version of Python. Uses only `sqlite3`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["DEFAULT_SCALE", "Database", "DatabaseRefusedError", "Progress", "Size", "build", "open_or_build", "tidy"]

DEFAULT_SCALE = 0.01

Progress = Callable[[str, int, int], object]
"""Called as `progress(table, rows_done, rows_total)`."""

_BATCH = 10_000
_LAYOUT = "1"  # increase it when the tables change: files with another layout are rebuilt
_FIRST_POST = 1_700_000_000  # seconds since 1970

_TABLES = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL
);
CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE comments (
    id INTEGER PRIMARY KEY,
    post_id INTEGER NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    body TEXT NOT NULL
);
CREATE TABLE likes (
    post_id INTEGER NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (post_id, user_id)
) WITHOUT ROWID;
CREATE TABLE demo_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# Created after the rows are inserted, which is faster than updating an index with each row.
_INDEXES = (
    ("users", "CREATE UNIQUE INDEX users_by_email ON users (email)"),
    ("posts", "CREATE INDEX posts_by_user ON posts (user_id)"),
    ("comments", "CREATE INDEX comments_by_post ON comments (post_id)"),
    ("comments", "CREATE INDEX comments_by_user ON comments (user_id)"),
    ("likes", "CREATE INDEX likes_by_user ON likes (user_id)"),
)

_INSERTS = {
    "users": "INSERT INTO users VALUES (?, ?, ?)",
    "posts": "INSERT INTO posts VALUES (?, ?, ?, ?, ?)",
    "comments": "INSERT INTO comments VALUES (?, ?, ?, ?)",
    "likes": "INSERT INTO likes VALUES (?, ?)",
}

_FIRST = ("Ada", "Alan", "Barbara", "Dennis", "Edsger", "Frances", "Grace", "Hedy", "Ken", "Radia")
_LAST = ("Allen", "Dijkstra", "Hopper", "Lamarr", "Liskov", "Lovelace", "Perlman", "Ritchie", "Turing")
_WORDS = ("pools", "threads", "pages", "locks", "queues", "caches", "writers", "readers", "journals", "rows")


class DatabaseRefusedError(Exception):
    """The path does not lead to a demo database. The file was not changed; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Size:
    """The number of rows of each table."""

    users: int
    posts: int
    comments: int
    likes: int

    @classmethod
    def at(cls, scale: float) -> Size:
        """Return the size at a scale; 1.0 is 1.2 million users with 12 million likes."""
        return cls(
            users=round(1_200_000 * scale),
            posts=round(120_000 * scale),
            comments=round(6_000_000 * scale),
            likes=round(12_000_000 * scale),
        )

    @property
    def writers(self) -> int:
        """The number of users with posts, about ten posts each: the users with the lowest ids."""
        return max(1, self.posts // 10)

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.posts:,} posts, {self.comments:,} comments, {self.likes:,} likes"


@dataclass(frozen=True, slots=True)
class Database:
    """A demo database on disk. `reused` is true if it existed before."""

    path: Path
    scale: float
    reused: bool

    @property
    def size(self) -> Size:
        """The number of rows of each table."""
        return Size.at(self.scale)


def open_or_build(path: Path, scale: float | None, progress: Progress) -> Database:
    """Return the demo database at `path` if it has this scale, or any if `scale` is `None`; else build it there.

    Raises `DatabaseRefusedError` if `path` leads to anything else than a demo database.
    """
    path = path.absolute()  # makes ":memory:" a normal file name
    recorded = _recorded_scale(path) if path.exists() else None
    if recorded is not None and scale in (None, recorded):
        return Database(path, recorded, reused=True)
    if not path.parent.is_dir():
        raise DatabaseRefusedError(f"there is no directory {str(path.parent)!r}")
    wanted = DEFAULT_SCALE if scale is None else scale
    build(path, wanted, progress)
    return Database(path, wanted, reused=False)


def build(path: Path, scale: float, progress: Progress) -> None:
    """Build a demo database of this scale in a temporary directory, then rename it to `path`."""
    with TemporaryDirectory(prefix=".aiosqlitepool-demo-", dir=path.parent) as folder:
        unfinished = Path(folder, path.name)
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as db:
            # Durability is not needed: an incomplete file is discarded.
            db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -64000")
            db.executescript(_TABLES)
            _fill(db, Size.at(scale), progress)
            db.executemany("INSERT INTO demo_meta VALUES (?, ?)", [("layout", _LAYOUT), ("scale", repr(scale))])
            db.execute("PRAGMA journal_mode = WAL")
        # SQLite would replay the WAL of an earlier file at this path into the new file.
        for leftover in ("-wal", "-shm"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        os.replace(unfinished, path)


def tidy(path: Path) -> None:
    """Remove the WAL of a database that has no connections.

    The last connection to close removes it, but not if several connections close at the same moment.
    """
    with closing(sqlite3.connect(path)) as db:
        db.execute("SELECT 1 FROM demo_meta").fetchall()


def _recorded_scale(path: Path) -> float | None:
    """Return the scale of a demo database, or `None` if it has another layout version."""
    if not path.is_file():
        raise DatabaseRefusedError("it is not a file")
    try:
        # immutable=1: reading a database of another program must not lock it or create files beside it.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            meta = dict(db.execute("SELECT key, value FROM demo_meta"))
        return float(meta["scale"]) if meta["layout"] == _LAYOUT else None
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise DatabaseRefusedError(f"it exists and is not a demo database ({error}); it was not changed") from error


def _fill(db: sqlite3.Connection, size: Size, progress: Progress) -> None:
    tables = {
        "users": _users(size),
        "posts": _posts(size),
        "comments": _comments(size),
        "likes": _likes(size),
    }
    total = sum(getattr(size, table) for table in (*tables, *(table for table, _ in _INDEXES)))
    done = 0
    for table, rows in tables.items():
        db.execute("BEGIN")
        while batch := list(islice(rows, _BATCH)):
            db.executemany(_INSERTS[table], batch)
            done += len(batch)
            progress(table, done, total)
        db.execute("COMMIT")
    for table, index in _INDEXES:
        db.execute(index)
        done += getattr(size, table)
        progress(f"index on {table}", done, total)


def _users(size: Size) -> Iterator[tuple[object, ...]]:
    for user in range(1, size.users + 1):
        first, last = _FIRST[user % len(_FIRST)], _LAST[user // len(_FIRST) % len(_LAST)]
        yield user, f"{first} {last}", f"{first}.{last}.{user}@example.org".lower()


def _posts(size: Size) -> Iterator[tuple[object, ...]]:
    for post in range(1, size.posts + 1):
        one, other = _two_words(post)
        title = f"What {one} taught me about {other}"
        yield post, 1 + post % size.writers, title, f"{title}. " * 10, _FIRST_POST + 600 * post


def _comments(size: Size) -> Iterator[tuple[object, ...]]:
    for comment in range(1, size.comments + 1):
        one, other = _two_words(comment)
        post, user = _scatter(comment, size.posts), _scatter(comment * 40_503, size.users)
        yield comment, 1 + post, 1 + user, f"I never thought of {one} that way. And {other}?"


def _likes(size: Size) -> Iterator[tuple[object, ...]]:
    for post in range(size.posts):
        likes = size.likes * (post + 1) // size.posts - size.likes * post // size.posts
        # All steps together pass each user at most once: a user likes a post at most once.
        first, step = _scatter(post, size.users), max(1, size.users // likes)
        for like in range(likes):
            yield 1 + post, 1 + (first + like * step) % size.users


def _two_words(number: int) -> tuple[str, str]:
    return _WORDS[number % len(_WORDS)], _WORDS[number * 7 // len(_WORDS) % len(_WORDS)]


def _scatter(number: int, below: int) -> int:
    """Map consecutive numbers evenly, and without visible order, to `range(below)` (Fibonacci hashing)."""
    return (number * 2_654_435_769 % 2**32) * below >> 32
