"""What stands in `{{ }}`: a path, and filters that its value goes through."""

from template.escape import escape
from template.filters import FILTERS
from template.scope import Scope
from template.tokens import TemplateError


class Expression:
    """One expression of a template."""

    def __init__(self, text: str, line: int) -> None:
        self.text = text
        self.line = line
        for name, _ in self.filters():
            if name != "raw" and name not in FILTERS:
                raise TemplateError(f"line {line}: there is no filter `{name}`")

    def parts(self) -> list[str]:
        """Split at the bars that are not quoted."""
        found = [""]
        quoted = False
        for letter in self.text:
            if letter == '"':
                quoted = not quoted
            if letter == "|" and not quoted:
                found.append("")
            else:
                found[-1] = found[-1] + letter
        return [part.strip() for part in found]

    def filters(self) -> list[tuple[str, str]]:
        """Give the filters, each with its argument."""
        found: list[tuple[str, str]] = []
        for part in self.parts()[1:]:
            name, _, argument = part.partition(":")
            found.append((name.strip(), argument.strip().strip('"')))
        return found

    def evaluate(self, scope: Scope) -> str:
        """Give the text that stands for it in a scope."""
        value = scope.lookup(self.parts()[0])
        for name, argument in self.filters():
            if name != "raw":
                value = FILTERS[name](value, argument)
        text = "" if value is None else str(value)
        if "raw" in [name for name, _ in self.filters()]:
            return text
        return escape(text)
