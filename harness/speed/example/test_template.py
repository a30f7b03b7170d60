"""The guard of the example: `python -m unittest -q test_template`, with nothing but Python."""

import random
import unittest
from typing import Any

from pages import page, right

from template import TemplateError, render


class Values(unittest.TestCase):
    """What `{{ }}` gives."""

    def check(self, text: str, expected: str, **data: Any) -> None:
        """Render, and compare."""
        self.assertEqual(render(text, data), expected)

    def test_paths(self) -> None:
        self.check("{{ a.b.1 }}{{a.c}}{{ x.y }}", "7", a={"b": [5, 7], "c": None})
        self.check("{{ n }} {{ a.z }}{{ a.9 }}", "0 ", n=0, a=[1])

    def test_five_letters_are_escaped_and_raw_is_not(self) -> None:
        text = """<a href="x">'&amp;'</a>"""
        self.check(
            "{{ t }}", "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;amp;&#x27;&lt;/a&gt;", t=text
        )
        self.check("{{ t | raw }}", text, t=text)
        self.check("{{ t | upper | raw }}", text.upper(), t=text)

    def test_filters(self) -> None:
        self.check('{{ t | cut:"5" }}/{{ t | cut:"6" }}', "ab.../abcdef", t="abcdef")
        self.check('{{ t | cut:"2" }}', "...", t="abcdef")
        self.check('{{ v | default:"a | b" }}{{ w | default:"x" }}', "a | b3", w=3)
        self.check('{{ v | join:", " }} {{ v | length }}', "1, 2 2", v=[1, 2])
        self.check("{{ a | money }} {{ b | money }}", "1,234,567.05 -12.00", a=123456705, b=-1200)
        self.check("{{ c | money }}", "-0.05", c=-5)
        self.check("{{ t | title | upper }}", "AB", t="ab")

    def test_quoted_text_may_hold_a_closer(self) -> None:
        self.check('{{ v | default:"}} %}" }}', "}} %}")

    def test_comments_go(self) -> None:
        self.check("a{# {{ x }} #}b", "ab")


class Tags(unittest.TestCase):
    """What `{% %}` does."""

    def test_if(self) -> None:
        text = "{% if a %}yes{% else %}no{% end %}{% if not a %}!{% end %}"
        self.assertEqual(render(text, {"a": [1]}), "yes")
        self.assertEqual(render(text, {"a": []}), "no!")
        self.assertEqual(render(text, {}), "no!")

    def test_for(self) -> None:
        text = "{% for x in xs %}{{ loop.index }}{{ x }} {% else %}none{% end %}"
        self.assertEqual(render(text, {"xs": ["a", "b"]}), "1a 2b ")
        self.assertEqual(render(text, {"xs": []}), "none")

    def test_an_inner_name_hides_an_outer_one_and_only_inside(self) -> None:
        text = "{% for x in xs %}{% for x in x %}{{ x }}{% end %}{{ x | length }}{% end %}{{ x }}"
        self.assertEqual(render(text, {"xs": [[1, 2], [3]], "x": "out"}), "12231out")

    def test_data_is_left_as_it_was(self) -> None:
        data = {"xs": [{"a": 1}], "loop": "mine"}
        render("{% for x in xs %}{{ x.a }}{% end %}", data)
        self.assertEqual(data, {"xs": [{"a": 1}], "loop": "mine"})

    def test_errors_have_their_line(self) -> None:
        cases = {
            "\n{{ a": "line 2: `{{` is never closed",
            "\n\n{% if a %}": "line 3: `if a` has no end",
            "{% end %}": "line 1: `end` ends nothing",
            "{% loop %}{% end %}": "line 1: `loop` is no tag",
            "\n{{ a | nope }}": "line 2: there is no filter `nope`",
        }
        for text, message in cases.items():
            with self.subTest(text), self.assertRaises(TemplateError) as caught:
                render(text, {})
            self.assertEqual(str(caught.exception), message)


class Pages(unittest.TestCase):
    """Whole pages."""

    def test_pages_come_out_as_they_must(self) -> None:
        for seed in range(5):
            arguments = page(random.Random(seed))
            self.assertTrue(right(arguments, render(*arguments)))

    def test_the_same_template_with_other_data(self) -> None:
        text = "{{ a }}{% for x in xs %}{{ x }}{% end %}"
        self.assertEqual(render(text, {"a": 1, "xs": [2]}), "12")
        self.assertEqual(render(text, {"a": 3, "xs": [4]}), "34")


if __name__ == "__main__":
    unittest.main()
