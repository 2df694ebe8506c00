"""Optimizers: one algorithm a file, each with a plain reference, and the parameter groups that scale them."""

from optimizers.registry import build_optimizer, param_groups

__all__ = ["build_optimizer", "param_groups"]
