"""Neural networks (never database rows): architectures, initialisation and their registry."""

from models.registry import BuiltModel, build, describe_model

__all__ = ["BuiltModel", "build", "describe_model"]
