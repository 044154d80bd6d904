"""Products, ranges, tables and draws give the cases that they say, each once."""

from __future__ import annotations

import pytest
from sweep import small

from grokutils.book.rerun import cases, chapter


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chapter.find(str(small.chapter(tmp_path_factory.mktemp("cases"))))


def test_products_and_ranges(tiny):
    found = cases.planned(tiny, ["seed=0:10", "prime=2,3,5", "lams=[0.1,0.2],[1]", "kind=b", "text='a, b'"])
    assert len({case.id for case in found}) == len(found) == 60
    assert {case.values["seed"] for case in found} == set(range(10))
    assert {tuple(case.values["lams"]) for case in found} == {(0.1, 0.2), (1,)}
    assert {(case.values["kind"], case.values["text"], case.values["n"]) for case in found} == {
        ("b", "a, b", 3)
    }


def test_the_same_values_are_the_same_case_however_they_are_given(tiny, tmp_path):
    (tmp_path / "t.yaml").write_text("- {n: 5, lr: 1}\n")
    (tmp_path / "t.csv").write_text("n,lr\n5,1.0\n5,1\n")
    ways = [
        cases.planned(tiny, ["n=5", "lr=1"]),
        cases.planned(tiny, ["n=5", "lr=1.0,1", "seed=0"]),
        cases.planned(tiny, [], tmp_path / "t.yaml"),
        cases.planned(tiny, ["seed=0"], tmp_path / "t.csv"),
    ]
    assert {tuple(case.id for case in way) for way in ways} == {(ways[0][0].id,)}


def test_draws_repeat_with_their_seed_and_stay_inside(tiny):
    wishes = ["lr=1e-4~1~log", "prime=2~50", "kind=a,b"]
    one, same, other = (cases.planned(tiny, wishes, draws=30, draw_seed=seed) for seed in (1, 1, 2))
    assert [case.id for case in one] == [case.id for case in same]
    assert {case.id for case in one} != {case.id for case in other}
    assert len({case.id for case in one}) == 30
    assert all(1e-4 <= case.values["lr"] <= 1 for case in one)
    assert sum(case.values["lr"] < 1e-2 for case in one) > 5  # half of them, for a logarithmic draw


def test_code_changes_the_case_and_the_set_up_cell_does_not(tiny, tmp_path):
    changed = chapter.find(str(small.chapter(tmp_path, work=small.WORK + "# more\n")))
    assert cases.planned(changed, [])[0].id != cases.planned(tiny, [])[0].id


def test_a_chapter_by_its_address_and_a_table_from_a_spreadsheet(tiny, tmp_path):
    path = small.chapter(tmp_path)
    assert chapter.find(f"{path.as_uri()}?raw=true").parameters == tiny.parameters
    (tmp_path / "t.csv").write_text('n,text\n3,"a\nb"\n', encoding="utf-8-sig")
    (case,) = cases.planned(tiny, [], tmp_path / "t.csv")
    assert case.values["text"] == "a\nb"
