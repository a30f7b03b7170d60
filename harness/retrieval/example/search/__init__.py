"""Search in the documentation of Python's library: by words, and by likeness."""
