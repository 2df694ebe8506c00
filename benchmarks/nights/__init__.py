"""Simulated nights: how often unchanged ones are flagged, whether planted faults are found, whether slots come once."""
