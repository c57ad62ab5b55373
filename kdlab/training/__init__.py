"""How a student learns: the loop, the sweep over settings, the Trainer, text written."""
