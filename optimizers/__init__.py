"""Optimizers: one algorithm a file, each with a plain reference, and the parameter groups that scale them."""
