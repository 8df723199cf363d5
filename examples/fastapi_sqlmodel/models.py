"""The tables, and the bodies of requests. A changed table needs a migration: `alembic revision --autogenerate`."""

from sqlmodel import Field, SQLModel


class NewHero(SQLModel):
    """A new hero."""

    name: str = Field(min_length=1, max_length=100, unique=True)
    strength: int = Field(default=0, ge=0)


class Hero(NewHero, table=True):
    """A hero."""

    id: int | None = Field(default=None, primary_key=True)


class Training(SQLModel):
    """By how much a hero gets stronger."""

    by: int = Field(ge=1)
