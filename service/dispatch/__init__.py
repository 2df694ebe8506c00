"""Finding studies that nobody drives, and driving them: the claim loop and its launchers."""
