"""Make the data of this example: books, readers, and what each reader would like.

    python make_data.py 7

Invented, by a seed: a reader likes one genre most, two others less, and some moods.
"""

import json
import random
import sys

GENRES = ("crime", "romance", "history", "science", "travel", "fantasy", "poetry", "cooking")
MOODS = ("dark", "funny", "slow", "tense", "warm", "odd")


def main() -> None:
    """Write items.jsonl, readers.jsonl, queries.jsonl and golden.jsonl."""
    chance = random.Random(int(sys.argv[1]))
    books = [
        {"id": f"b{n:03}", "tags": [chance.choice(GENRES), *chance.sample(MOODS, 2)]}
        for n in range(240)
    ]
    for book in books:
        book["sold"] = int(1000 * chance.random() ** 3)
    write("items.jsonl", books)
    readers, golden = [], []
    for n in range(40):
        first, *others = chance.sample(GENRES, 3)
        moods = chance.sample(MOODS, 3)
        taste = {first: 1.0, others[0]: 0.7, others[1]: 0.5}
        scored = sorted(books, key=lambda b: -liking(b, taste, moods) - 0.2 * chance.random())
        relevant = {book["id"]: 3 for book in scored[:12]} | {b["id"]: 1 for b in scored[12:40]}
        read = [book["id"] for book in chance.sample(scored[:40], 6)]
        name = f"r{n:02}"
        readers.append({"id": name, "query": json.dumps({"taste": taste, "read": read})})
        golden.append(
            readers[-1]
            | {"relevant": {b: g for b, g in relevant.items() if b not in read}}
            | {"held_out": n % 4 == 3}
        )
    write("queries.jsonl", readers)
    write("golden.jsonl", golden)


def liking(book, taste, moods):
    """Say how well a book suits a reader."""
    genre, *has = book["tags"]
    return taste.get(genre, 0.0) + 0.25 * len(set(has) & set(moods))


def write(path, rows):
    """Write lines of JSON."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
