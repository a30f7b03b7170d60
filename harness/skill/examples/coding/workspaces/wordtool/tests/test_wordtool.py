import io
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import wordtool


class TestWordtool(unittest.TestCase):
    def test_words_are_bare_and_lower(self) -> None:
        self.assertEqual(wordtool.words("Well, (so) it is!"), ["well", "so", "it", "is"])

    def test_count(self) -> None:
        self.assertEqual(wordtool.count("one two - three"), 4)

    def test_main_prints_the_count(self) -> None:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as out:
            file = Path(folder, "text.txt")
            file.write_text("four words are here", encoding="utf-8")
            self.assertEqual(wordtool.main([str(file)]), 0)
        self.assertEqual(out.getvalue(), "4\n")

    def test_main_wants_one_file(self) -> None:
        with redirect_stderr(io.StringIO()):
            self.assertEqual(wordtool.main([]), 2)
