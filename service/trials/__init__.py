"""The trials of a study over HTTP."""
