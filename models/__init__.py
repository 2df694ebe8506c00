"""Neural networks (never database rows): architectures, initialisation and their registry."""
