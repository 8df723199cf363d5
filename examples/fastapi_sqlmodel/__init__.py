"""A small FastAPI service with SQLModel over a `SQLiteDatabase`, to copy from."""
