"""Give each reader on stdin a list of books: `python -m shelf items.jsonl < queries.jsonl`."""

import json
import sys

from shelf.choose import choose
from shelf.score import score


def main():
    """Answer all readers."""
    with open(sys.argv[1], encoding="utf-8") as file:
        books = [json.loads(line) for line in file]
    by_id = {book["id"]: book for book in books}
    for line in sys.stdin:
        reader = json.loads(line)
        told = json.loads(reader["query"])
        read = [by_id[name] for name in told["read"]]
        rated = [(score(book, told["taste"], read), book) for book in books if book not in read]
        rated.sort(key=lambda pair: (-pair[0], pair[1]["id"]))
        results = [{"id": book["id"]} for book in choose(rated, 10)]
        print(json.dumps({"id": reader["id"], "results": results}))


if __name__ == "__main__":
    main()
