"""Turns a customer's message, on stdin, into the first reply: the part that experiments change."""

import re
import sys

SENTENCES = 12  # of the message that are quoted
WORDS = 160
GREETING = False
REFERENCE = False  # whether the order's number is named
SHOUT = True
CLOSING = "none"  # none, short, polite

CLOSINGS = {"none": "", "short": "Bye.", "polite": "Kind regards, your support team"}


def reply(message: str) -> str:
    """Write the reply."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(message.split()))
    quoted = " ".join(sentences[: max(1, int(SENTENCES))])
    lines = [f"You wrote: {quoted}", "We look into it and answer within a day."]
    order = re.search(r"\b[A-Z]{2}-\d+\b", message)
    if REFERENCE and order:
        lines.insert(0, f"Reference: {order.group()}")
    if GREETING:
        lines.insert(0, "Hello,")
    text = "\n".join([*lines, CLOSINGS[CLOSING]]).rstrip()
    words = re.findall(r"\S+\s*", text.upper() if SHOUT else text)
    return "".join(words[: max(1, int(WORDS))]).rstrip()


if __name__ == "__main__":
    print(reply(sys.stdin.read()))
