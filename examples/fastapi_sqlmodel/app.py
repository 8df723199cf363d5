"""The service: heroes, over HTTP.

    DATABASE=heroes.db uvicorn fastapi_sqlmodel.app:app --app-dir examples

A request that reads uses a read-only connection. One that writes waits for the writer, and is a transaction: the rows
that it has read cannot change before it writes.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, TimeoutError
from sqlmodel import col, select

from .database import Reading, Writing, lifespan
from .models import Hero, NewHero, Training

app = FastAPI(title="Heroes", lifespan=lifespan)


@app.exception_handler(TimeoutError)
async def busy(request: Request, error: Exception) -> JSONResponse:
    """No connection, or no writer, in time: the client may retry."""
    logging.getLogger(__name__).warning("%s", error)  # it names the holders
    return JSONResponse({"detail": "busy, try again"}, status_code=503, headers={"Retry-After": "1"})


@app.post("/heroes", status_code=201)
async def create_hero(new: NewHero, session: Writing) -> Hero:
    """Add a hero."""
    hero = Hero.model_validate(new)
    session.add(hero)
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, f"there is a hero {new.name!r} already") from None
    return hero


@app.get("/heroes")
async def list_heroes(session: Reading, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[Hero]:
    """The strongest heroes."""
    return list(await session.exec(select(Hero).order_by(col(Hero.strength).desc(), col(Hero.id)).limit(limit)))


@app.get("/heroes/{hero_id}")
async def read_hero(hero_id: int, session: Reading) -> Hero:
    """One hero."""
    return await found(hero_id, session)


@app.post("/heroes/{hero_id}/training")
async def train_hero(hero_id: int, training: Training, session: Writing) -> Hero:
    """Make a hero stronger: read, then write, with no other write between them."""
    hero = await found(hero_id, session)
    hero.strength += training.by
    return hero


async def found(hero_id: int, session: Reading) -> Hero:
    """The hero of this id."""
    hero = await session.get(Hero, hero_id)
    if hero is None:
        raise HTTPException(404, f"there is no hero {hero_id}")
    return hero
