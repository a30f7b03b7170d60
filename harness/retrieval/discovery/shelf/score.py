"""How well a book suits a reader."""


def score(book, taste, read):
    """Give a number; more is better."""
    genre, *moods = book["tags"]
    shared = sum(mood in other["tags"] for other in read for mood in moods)
    return taste.get(genre, 0.0) + 0.05 * shared
