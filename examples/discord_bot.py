"""A bot with a database: opened before the bot connects, closed when it ends.

    pip install aiosqlitepool discord.py
    DISCORD_TOKEN=... python examples/discord_bot.py bot.db

Shows: a `SQLiteDatabase` with the life of the bot, one statement for each command, labels that say which command waits,
and an answer instead of silence when the database is busy. Another library needs the same two places: one that is
awaited before the first command, and one that is awaited after the last.
"""

from __future__ import annotations

import os
import sys

import discord
from discord.ext import commands

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteDatabase

STEPS = ["CREATE TABLE score (user INTEGER PRIMARY KEY, points INTEGER NOT NULL)"]
ADD_POINT = """
    INSERT INTO score VALUES (?, 1) ON CONFLICT (user) DO UPDATE SET points = points + 1 RETURNING points
"""
BEST = "SELECT user, points FROM score ORDER BY points DESC, user LIMIT 3"


class Bot(commands.Bot):
    """Counts points."""

    def __init__(self, path: str) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__("!", intents=intents)
        # Rather a quick answer than a late one.
        self.db = SQLiteDatabase(path, acquisition_timeout=3, max_waiting=100)

    async def setup_hook(self) -> None:
        """Open the database; awaited by the library before the bot connects."""
        await self.db.open()
        await self.db.migrate(STEPS)
        self.add_command(praise)
        self.add_command(best)

    async def close(self) -> None:
        """End the bot, and then close the database."""
        try:
            await super().close()
        finally:
            await self.db.close()

    async def on_command_error(self, ctx: commands.Context[Bot], error: commands.CommandError) -> None:  # type: ignore[override]
        """Say it when the database is busy; leave all else to the library."""
        cause = getattr(error, "original", None)
        if isinstance(cause, PoolConnectionAcquireTimeoutError | PoolFullError):
            await ctx.send("I am busy, please try again.")
        else:
            await super().on_command_error(ctx, error)


@commands.command()
async def praise(ctx: commands.Context[Bot], user: int) -> None:
    """Give a user a point."""
    async with ctx.bot.db.write("praise") as connection:
        row = await (await connection.execute(ADD_POINT, (user,))).fetchone()
    assert row is not None
    await ctx.send(f"<@{user}> has {row[0]}")


@commands.command()
async def best(ctx: commands.Context[Bot]) -> None:
    """Say who has the most points."""
    rows = await ctx.bot.db.fetch_all(BEST, label="best")
    await ctx.send("\n".join(f"<@{user}> has {points}" for user, points in rows) or "no points yet")


if __name__ == "__main__":
    Bot(sys.argv[1]).run(os.environ["DISCORD_TOKEN"])
