"""Ray's side: the driver of one study, the trial actors, the training loop, data and checkpoints."""
