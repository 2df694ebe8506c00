"""Mirroring studies to MLflow, out of the outbox; and judging again from MLflow alone."""
