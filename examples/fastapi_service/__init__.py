"""A small FastAPI service over a `SQLiteDatabase`, to copy from."""
