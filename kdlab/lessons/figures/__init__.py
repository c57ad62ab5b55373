"""The pictures of the lessons, one file a lesson: a cell shows an idea, not how it is drawn."""
