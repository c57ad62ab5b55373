"""Where we run, where things are found, and what an argument may be."""
