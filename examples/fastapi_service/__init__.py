"""A small FastAPI service over a database of its own, as its users may copy it."""
