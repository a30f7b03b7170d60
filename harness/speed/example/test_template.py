"""The guard of the example: `python -m unittest -q test_template`, with nothing but Python."""

import random
import unittest
from typing import Any

from pages import page, right
from template import TemplateError, render


def check(text: str, expected: str, **data: Any) -> None:
    """Render, and compare."""
    found = render(text, data)
    assert found == expected, f"{text!r} gives {found!r} and not {expected!r}"


def complaint(text: str) -> str:
    """Give what is said of a template that cannot be used."""
    try:
        render(text, {})
    except TemplateError as error:
        return str(error)
    return "nothing"


class Values(unittest.TestCase):
    """What `{{ }}` gives."""

    def test_paths(self) -> None:
        check("{{ a.b.1 }}{{a.c}}{{ x.y }}", "7", a={"b": [5, 7], "c": None})
        check("{{ n }} {{ a.z }}{{ a.9 }}", "0 ", n=0, a=[1])

    def test_five_letters_are_escaped_and_raw_is_not(self) -> None:
        text = """<a href="x">'&amp;'</a>"""
        safe = "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;amp;&#x27;&lt;/a&gt;"
        check("{{ t }}", safe, t=text)
        check("{{ t | raw }}", text, t=text)
        check("{{ t | upper | raw }}", text.upper(), t=text)

    def test_filters(self) -> None:
        check('{{ t | cut:"5" }}/{{ t | cut:"6" }}', "ab.../abcdef", t="abcdef")
        check('{{ t | cut:"2" }}', "...", t="abcdef")
        check('{{ v | default:"a | b" }}{{ w | default:"x" }}', "a | b3", w=3)
        check('{{ v | join:", " }} {{ v | length }}', "1, 2 2", v=[1, 2])
        check("{{ t | title | upper }}", "AB", t="ab")

    def test_money(self) -> None:
        check("{{ a | money }} {{ b | money }}", "1,234,567.05 -12.00", a=123456705, b=-1200)
        check("{{ a | money }} {{ b | money }}", "-0.05 0.00", a=-5, b=0)
        check("{{ a | money }}", "90,071,992,547,409.93", a=2**53 + 1)

    def test_quoted_text_may_hold_a_closer(self) -> None:
        check('{{ v | default:"}} %}" }}', "}} %}")

    def test_comments_go(self) -> None:
        check("a{# {{ x }} #}b", "ab")


class Tags(unittest.TestCase):
    """What `{% %}` does."""

    def test_if(self) -> None:
        text = "{% if a %}yes{% else %}no{% end %}{% if not a %}!{% end %}"
        check(text, "yes", a=[1])
        check(text, "no!", a=[])
        check(text, "no!")

    def test_for(self) -> None:
        text = "{% for x in xs %}{{ loop.index }}{{ x }} {% else %}none{% end %}"
        check(text, "1a 2b ", xs=["a", "b"])
        check(text, "none", xs=[])

    def test_an_inner_name_hides_an_outer_one_and_only_inside(self) -> None:
        text = "{% for x in xs %}{% for x in x %}{{ x }}{% end %}{{ x | length }}{% end %}{{ x }}"
        check(text, "12231out", xs=[[1, 2], [3]], x="out")

    def test_data_is_left_as_it_was(self) -> None:
        data = {"xs": [{"a": 1}], "loop": "mine"}
        render("{% for x in xs %}{{ x.a }}{% end %}", data)
        assert data == {"xs": [{"a": 1}], "loop": "mine"}

    def test_errors_have_their_line(self) -> None:
        assert complaint("\n{{ a") == "line 2: `{{` is never closed"
        assert complaint("\n\n{% if a %}") == "line 3: `if a` has no end"
        assert complaint("{% end %}") == "line 1: `end` ends nothing"
        assert complaint("{% loop %}{% end %}") == "line 1: `loop` is no tag"
        assert complaint("\n{{ a | nope }}") == "line 2: there is no filter `nope`"


class Pages(unittest.TestCase):
    """Whole pages."""

    def test_pages_come_out_as_they_must(self) -> None:
        for seed in range(5):
            arguments = page(random.Random(seed))
            assert right(arguments, render(*arguments)), f"the page of seed {seed}"

    def test_the_same_template_with_other_data(self) -> None:
        text = "{{ a }}{% for x in xs %}{{ x }}{% end %}"
        check(text, "12", a=1, xs=[2])
        check(text, "34", a=3, xs=[4])


if __name__ == "__main__":
    unittest.main()
