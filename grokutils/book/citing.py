"""The list of references in the style of the text: author and year, sorted by them."""

from __future__ import annotations

from collections import Counter
from string import ascii_lowercase

from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle


class Labels(BaseLabelStyle):
    """Author and year, as Sphinx writes a citation; a letter where two entries would be the same."""

    def format_labels(self, entries):
        """The label of each of the sorted ``entries``."""
        plain = [label(entry) for entry in entries]
        many, seen = Counter(plain), Counter()
        for name in plain:
            yield name + (ascii_lowercase[seen[name]] if many[name] > 1 else "")
            seen[name] += 1


def label(entry) -> str:
    """One entry's authors and year."""
    people = entry.persons.get("author", entry.persons.get("editor", []))
    names = [" ".join(person.last_names) for person in people] or [entry.fields.get("title", entry.key)]
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who}, {entry.fields.get('year', 'no year')}"


class AuthorYear(Style):
    """The plain style, labelled and sorted by author and year."""

    default_sorting_style = "author_year_title"
    default_label_style = Labels
