"""Study files, and a model of your own to start from."""
