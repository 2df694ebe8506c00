"""What the service costs at 1,000,000 trials of history, beside 10,000: `python -m benchmarks.service`."""
