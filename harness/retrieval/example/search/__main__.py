"""Answer queries: a line of JSON for each line of JSON.

python -m search corpus.jsonl < queries.jsonl
"""

import json
import sys

from search.fetch import FETCH, SHOWN
from search.fusion import fuse
from search.lexical import Lexical
from search.vectors import Vectors


def main():
    """Build the indexes, then answer what stands on stdin."""
    with open(sys.argv[1], encoding="utf-8") as file:
        chunks = [json.loads(line) for line in file]
    lexical, vectors = Lexical(chunks), Vectors(chunks)
    for line in sys.stdin:
        query = json.loads(line)
        found = fuse(lexical.find(query["query"], FETCH), vectors.find(query["query"], FETCH))
        results = [
            {"id": chunks[n]["id"], "title": chunks[n]["name"], "text": chunks[n]["summary"]}
            | {"score": score}
            for n, score in found[:SHOWN]
        ]
        print(json.dumps({"id": query["id"], "results": results}))


if __name__ == "__main__":
    main()
