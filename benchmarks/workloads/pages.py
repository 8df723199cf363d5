"""1,000 requests across 100 workers: each acquires once and reads an author's page in four indexed queries.

Once with 5 connections, the size that suits SQLite, and once with 100, one for each worker.
"""

from __future__ import annotations

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task
from . import LOAD, Workload

AUTHOR = "SELECT name, email FROM users WHERE id = ?"
POSTS = "SELECT id, title, created_at FROM posts WHERE user_id = ? ORDER BY id DESC LIMIT 10"
COMMENTS = """
SELECT comments.id, users.name, comments.body FROM comments JOIN users ON users.id = comments.user_id
WHERE comments.post_id = ? ORDER BY comments.id DESC LIMIT 20
"""
LIKES = "SELECT count(*) FROM likes WHERE post_id = ?"


async def measure(contender: Contender, size: int, task: Task) -> Measured:
    async def page(author: int) -> None:
        async with contender.connection() as conn:
            await contender.fetch(conn, AUTHOR, author)
            posts = await contender.fetch(conn, POSTS, author)
            latest = posts[0][0] if posts else 0
            await contender.fetch(conn, COMMENTS, latest)
            await contender.fetch(conn, LIKES, latest)

    await contender.open(task.database, size)
    try:
        return await under_load(
            page, task.keys(task.authors, task.count(1_000, least=200)), workers=100, settle=contender.settle
        )
    finally:
        await contender.close()


workload = Workload(
    title="1,000 pages across 100 workers",
    cases={"5 connections": 5, "100 connections": 100},
    measure=measure,
    figures=LOAD,
    threads=True,
    seconds=1.1,
)
