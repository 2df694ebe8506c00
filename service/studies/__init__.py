"""Studies over HTTP: submit, look at, cancel, judge, follow."""
