"""What the checklist asks in Python."""


def calm(output: str) -> bool:
    """Say whether most letters are small ones."""
    letters = [c for c in output if c.isalpha()]
    return sum(c.islower() for c in letters) > len(letters) / 2
