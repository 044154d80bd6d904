"""Search: the index must cut words as the reader's browser does, or the book's own title word is not found."""

from __future__ import annotations

from sphinx.search.en import SearchEnglish


class English(SearchEnglish):
    """Sphinx's English, with "grokking" cut to "grok".

    Sphinx's script undoubles every final consonant after -ing and -ed, as Porter wrote; its Python stemmer leaves kk.
    """

    def stem(self, word: str) -> str:
        """The stem of ``word``."""
        found = super().stem(word)
        return found[:-1] if found.endswith("kk") else found
