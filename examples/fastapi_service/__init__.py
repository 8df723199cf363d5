"""A small FastAPI service over a connection pool, as its users may copy it."""
