"""Text made safe for HTML."""

NAMES = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")]


def escape(text: str) -> str:
    """Write the letters that HTML gives a meaning to by their names."""
    safe = ""
    for letter in text:
        name = letter
        for special, replacement in NAMES:
            if letter == special:
                name = replacement
        safe = safe + name
    return safe
