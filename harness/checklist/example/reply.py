"""Turns a customer's message, on stdin, into the first reply: the part that experiments change."""

import re
import sys

SENTENCES = 6  # of the message that are quoted
LOUD = True  # whether they are quoted in capitals
GREETING = False
REFERENCE = False  # whether the order's number is named
CLOSING = "none"  # none, short, polite

CLOSINGS = {"none": "", "short": "Bye.", "polite": "Kind regards, your support team"}


def reply(message: str) -> str:
    """Write the reply."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(message.split()))
    quoted = " ".join(sentences[: max(1, int(SENTENCES))])
    if LOUD:
        quoted = quoted.upper()
    lines = [f"You wrote: {quoted}", "We look into it and answer within a day."]
    order = re.search(r"\b[A-Z]{2}-\d+\b", message)
    if REFERENCE and order:
        lines.insert(0, f"Reference: {order.group()}")
    if GREETING:
        lines.insert(0, "Hello,")
    return "\n".join([*lines, CLOSINGS[CLOSING]]).rstrip()


if __name__ == "__main__":
    print(reply(sys.stdin.read()))
