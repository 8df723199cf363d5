"""The bot's life and its commands, without a network: the library's hooks are called as the library calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from discord.ext import commands

from aiosqlitepool import PoolClosedError, PoolFullError
from examples.discord_bot import Bot, best, praise


class Message:
    """What a command gets: the bot, and a way to answer."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.sent: list[str] = []

    async def send(self, text: str) -> None:
        self.sent.append(text)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    bot = Bot(str(tmp_path / "bot.db"))
    await bot.setup_hook()
    yield bot
    await bot.close()


async def said(command: Any, bot: Bot, *arguments: Any) -> list[str]:
    message = Message(bot)
    await command.callback(message, *arguments)
    return message.sent


async def test_points_are_counted(bot: Bot) -> None:
    assert await said(best, bot) == ["no points yet"]
    assert await said(praise, bot, 7) == ["<@7> has 1"]
    assert await said(praise, bot, 7) == ["<@7> has 2"]
    assert await said(praise, bot, 8) == ["<@8> has 1"]
    assert await said(best, bot) == ["<@7> has 2\n<@8> has 1"]


async def test_its_commands_are_known_once_it_is_set_up(bot: Bot) -> None:
    assert {"praise", "best"} <= {command.name for command in bot.commands}


async def test_points_outlive_the_bot_and_its_database_ends_with_it(tmp_path: Path) -> None:
    for points in (1, 2):
        bot = Bot(str(tmp_path / "bot.db"))
        await bot.setup_hook()
        assert await said(praise, bot, 7) == [f"<@7> has {points}"]
        await bot.close()
        with pytest.raises(PoolClosedError):
            await bot.db.fetch_val("SELECT 1")


async def test_a_busy_database_is_answered_and_other_errors_are_the_librarys(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []

    async def on_command_error(self: object, ctx: object, error: object) -> None:
        left.append(error)

    monkeypatch.setattr(commands.Bot, "on_command_error", on_command_error)
    message: Any = Message(bot)
    await bot.on_command_error(message, commands.CommandInvokeError(PoolFullError("full")))
    other = commands.CommandInvokeError(ValueError("other"))
    await bot.on_command_error(message, other)
    assert (message.sent, left) == (["I am busy, please try again."], [other])
