"""The database's history, one Alembic revision a step; run by `service.db.migrate`."""
