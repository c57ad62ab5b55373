"""What the notebooks lean on: exercises and their checks, the doctor, the start."""
