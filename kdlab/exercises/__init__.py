"""What a right answer is: one file a lesson, each a tuple EXERCISES of kdlab.checks.Exercise."""
