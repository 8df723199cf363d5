"""A small FastAPI service over SQLModel and a database of its own, as its users may copy it."""
