"""Which of the rated books come onto the list."""


def choose(rated, most):
    """Take some of (score, book), best first."""
    return [book for _, book in rated[:most]]
