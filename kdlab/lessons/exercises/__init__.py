"""What a right answer is: a file a lesson, each a tuple EXERCISES of checks.Exercise."""
