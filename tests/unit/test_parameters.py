"""Parameters: the grammar of their declarations, every refusal, and the check inside real notebooks."""

import math

import nbformat
import numpy as np
import papermill
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from grokutils import parameters
from grokutils.parameters import declared

CELL = """\
p: int = 37  # [3, 199] odd. Modulus of the table.
fraction: float = 0.7  # (0, 1). Share to train on.
lams: list = [1e-1, 1e-2]  # each (0, 1]. Weight decays λ.
seeds: list = [0, 1]  # each [0, inf). Seeds.
activation: str = "relu"  # one of relu | quadratic | tanh. Hidden units.
title: str = "a # b"  # Any text.
names: list = ["add"]  # each one of add | multiply. Operations.
movie: bool = False  # Whether to draw frames.
steps: int = 10
"""
CELL = CELL.replace("steps: int = 10\n", "steps: int = 10  # Any number.\n")


def test_a_cell_is_read():
    found = declared(CELL)
    assert list(found) == ["p", "fraction", "lams", "seeds", "activation", "title", "names", "movie", "steps"]
    assert found["p"] == parameters.Parameter("p", "int", 37, "[3, 199] odd", "Modulus of the table.")
    assert found["lams"].allowed == "each (0, 1]"
    assert found["activation"].allowed == "one of relu | quadratic | tanh"
    assert found["activation"].meaning == "Hidden units."
    assert found["title"].default == "a # b"
    assert (found["title"].allowed, found["title"].meaning) == ("", "Any text.")


GOOD = {
    "p": [3, 199, 38 - 1, np.int64(37)],
    "fraction": [0.5, 1e-9, 0.999, np.float64(0.5)],
    "lams": [[1], [1e-3, 1.0], np.array([0.5, 1.0])],
    "seeds": [[0], [5, 10**9]],
    "activation": ["tanh"],
    "title": ["", "x"],
    "names": [["multiply", "add"]],
    "movie": [True],
    "steps": [-3, 0],
}
BAD = {
    "p": [2, 201, 38, 37.0, "37.0", "0x25", "3_7", "037", True, None, [37], math.nan],
    "fraction": [0, 1, -0.5, math.nan, math.inf, "half", "1/2", "0,5", "inf", True, None],
    "lams": [[], 0.1, [0.0], [2], [0.1, "a"], [True], None, [math.nan], "0.1"],
    "seeds": [[-1], [0.5], [math.inf], 3],
    "activation": ["ReLU", "", "relu | tanh", 1, None],
    "title": [3, None, ["x"]],
    "names": [["plus"], [], "add"],
    "movie": [0, 1, "yes", None],
    "steps": [1.5, "one", False],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in GOOD.items() for v in values])
def test_values_in_range_pass(name, value):
    checked = declared(CELL)[name].checked(value)
    assert np.array_equal(checked, value)
    assert type(checked) in (int, float, str, bool, list)
    assert name != "fraction" or type(checked) is float


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_values_out_of_range_are_named(name, value):
    parameter = declared(CELL)[name]
    with pytest.raises(ValueError) as refused:
        parameter.checked(value)
    text = str(refused.value)
    assert text.startswith(f"{name} = {value!r}: must be {parameter.type}")
    assert parameter.allowed.removeprefix("each ") in text
    assert text.endswith(parameter.meaning)


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [("p", "37", 37), ("p", " 5 ", 5), ("p", "+7", 7), ("fraction", "1e-1", 0.1), ("fraction", ".5", 0.5),
     ("fraction", "5E-2", 0.05), ("lams", ["1e-3", 1], [1e-3, 1]), ("seeds", ["0", "12"], [0, 12])],
)  # fmt: skip
def test_numbers_that_arrive_as_text_are_read(name, text, number):
    assert declared(CELL)[name].checked(text) == number


@pytest.mark.parametrize(
    ("text", "advice"), [("0,5", "write 0.5"), ("50 %", "write 0.5"), ("1/2", "without quotes")]
)
def test_text_that_is_no_number_is_refused_with_what_to_write(text, advice):
    with pytest.raises(ValueError, match=advice):
        declared(CELL)["fraction"].checked(text)


PLAIN = """\
n = 3  # How many.
lr = 1e-3
name: str = "a # b"; flags = [1, "x"]
upstream = None
product = {"nb": "out.ipynb"}
options = {"a": 1}
maybe = None
pair = (1, 2)
path = open("/nowhere")
"""


def test_a_plain_cell_takes_types_from_its_defaults():
    found = parameters.plain(PLAIN)
    assert {name: p.type for name, p in found.items()} == {
        "n": "int", "lr": "float", "name": "str", "flags": "list", "options": "dict", "maybe": "any", "pair": "list"
    }  # fmt: skip
    assert found["n"].meaning == "How many."
    good = {"n": -5, "lr": 1, "flags": [], "options": {}, "maybe": "x", "pair": (3, 4)}
    assert all(found[name].checked(value) is not None for name, value in good.items())
    for name, value in {"n": 1.5, "lr": "fast", "name": 3, "flags": 3, "options": [], "pair": "x"}.items():
        with pytest.raises(ValueError, match=f"{name} = .*as its default"):
            found[name].checked(value)


@pytest.mark.parametrize("name", ["PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH", "upstream", "product"])
def test_what_other_tools_inject_is_let_through(shell, name):
    assert run(shell, CELL + f"{name} = None\n", f"# Parameters\n{name} = 'x'\n", CHECK) is None


def test_a_whole_number_serves_as_a_float():
    checked = declared("x: float = 0.5  # [0, 3]. Size.")["x"].checked(2)
    assert type(checked) is float
    assert checked == 2


@given(
    low=st.integers(-50, 50),
    size=st.integers(0, 60),
    left=st.sampled_from("[("),
    right=st.sampled_from("])"),
    kind=st.sampled_from(["", "odd", "even", "prime"]),
)
def test_intervals_hold_what_they_say(low, size, left, right, kind):
    high = low + size
    primes = {n for n in range(2, 200) if all(n % k for k in range(2, n))}
    rule = {
        "": lambda n: True,
        "odd": lambda n: n % 2,
        "even": lambda n: not n % 2,
        "prime": primes.__contains__,
    }
    inside = {n for n in range(low + (left == "("), high + (right == "]")) if rule[kind](n)}
    parameter = parameters.Parameter("n", "int", 0, f"{left}{low}, {high}{right} {kind}".strip(), "Number.")
    for n in range(low - 2, high + 3):
        if n in inside:
            assert parameter.checked(n) == n
        else:
            with pytest.raises(ValueError, match=rf"n = {n}: must be int in "):
                parameter.checked(n)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x: int = 3",
        "x = 3  # [0, 5]. A plain assignment.",
        "x: int = 3  # [0, 5]. X.\nprint(x)",
        "x: int = = 3",
        "%matplotlib inline",
        "# only a comment",
    ],
)
def test_other_cells_declare_nothing(source):
    assert declared(source) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "x: int = 3  # [0, 5]. X.\ny: int = 3",
            "parameter y: must be 'name: type = default  # RANGE. Meaning.'",
        ),
        ("x: tuple = (1, 2)  # Meaning.", "parameter x: must be 'name: type = default"),
        ("x: int  # [0, 5]. No default.", "parameter x: must be 'name: type = default"),
        ("x: int = 2 + y  # [0, 5]. Not a literal.", "parameter x: must be 'name: type = default"),
        ("x: int = 3  # [0, 5. Open ended.", "parameter x: the range in .* is not understood"),
        ("x: int = 3  # [a, 5]. No number.", "parameter x: the range in .* is not understood"),
        ("x: int = 9  # [0, 5]. Outside.", r"x = 9: must be int in \[0, 5\]. Outside."),
        ("x: int = 3  # [5, 0]. Empty.", r"x = 3: must be int in \[5, 0\]"),
        ("x: int = 4  # [0, 9] odd. Even.", r"x = 4: must be int in \[0, 9\] odd"),
        ("x: int = 0.5  # [0, 5]. Wrong type.", "x = 0.5: must be int"),
        ('x: str = "c"  # one of a | b. Word.', "x = 'c': must be str one of a | b"),
        (
            "x: list = [0, 7]  # each [0, 5]. Entries.",
            r"x = \[0, 7\]: must be list entries, each in \[0, 5\]",
        ),
        ("x: list = []  # each [0, 5]. Empty.", r"x = \[\]: must be list"),
        ("x: int = 1  # [0, 5]. One.\nx: int = 2  # [0, 5]. Two.", "parameter x: declared twice"),
    ],
)
def test_bad_declarations(line, message):
    with pytest.raises(ValueError, match=message):
        declared(line)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"fractoin is no parameter .*did you mean fraction\?.*p, fraction"):
        parameters.unknown("fractoin", declared(CELL))
    parameters.unknown("p", declared(CELL))


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def run(shell, *cells):
    """Run cells; returns what the last one raised."""
    for cell in cells:
        result = shell.run_cell(cell, store_history=True)
    return result.error_in_exec


CHECK = "from grokutils import parameters\nparameters.check()"


def test_check_in_a_shell(shell):
    assert run(shell, CELL, CHECK) is None
    assert "must be int in [3, 199] odd" in str(run(shell, "p = 4", CHECK))
    assert run(shell, "p = 5; fraction = 1e-1", CHECK) is None
    assert shell.user_ns["p"] == 5
    assert "fraction = 1: must be float in (0, 1)" in str(run(shell, "fraction = 1", CHECK))


def test_check_where_cells_leave_no_history(shell):
    for cell in (CELL, "p = 4"):
        shell.run_cell(cell, store_history=False)
    assert "p = 4: must be int" in str(shell.run_cell(CHECK, store_history=False).error_in_exec)


def test_check_in_a_shell_where_no_parameters_were_run(shell):
    error = run(shell, "x = 3", CHECK)
    assert isinstance(error, RuntimeError)
    assert "run it before" in str(error)


def test_check_takes_the_last_declaration(shell):
    assert run(shell, CELL, "n: int = 3  # [0, 5]. Another chapter's.", "n = 4", CHECK) is None
    assert "n = 9: must be int" in str(run(shell, "n = 9", CHECK))


def test_check_leaves_a_readers_own_annotations_alone(shell):
    assert run(shell, CELL, CHECK, "mine: dict = {}", CHECK) is None
    assert "p = 4" in str(run(shell, "p = 4", "mine: dict = {}", CHECK))


def test_check_makes_floats(shell):
    run(shell, "x: float = 0.5  # [0, 3]. Size.", "x = 2", CHECK)
    assert type(shell.user_ns["x"]) is float


def test_check_outside_a_notebook():
    with pytest.raises(RuntimeError, match="no parameters cell was run"):
        parameters.check()


def notebook(*cells):
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    book.cells = [nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)]
    book.cells[0].metadata["tags"] = ["parameters"]
    return book


@pytest.mark.slow
def test_check_in_a_notebook():
    done = NotebookClient(notebook(CELL, CHECK, "print(p)")).execute()
    assert done.cells[2].outputs[0].text == "37\n"
    with pytest.raises(
        CellExecutionError, match=r"p = 36: must be int in \[3, 199\] odd\. Modulus of the table\."
    ):
        NotebookClient(notebook(CELL, "p = 36", CHECK)).execute()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"p": 5, "lams": [0.5], "activation": "tanh", "movie": True}, None),
        ({"q": 5}, "q is no parameter of this chapter"),
        ({"p": "five"}, r"p = 'five': must be int in \[3, 199\] odd"),
        ({"p": 4}, r"p = 4: must be int in \[3, 199\] odd"),
    ],
)
def test_check_under_papermill(tmp_path, given, message):
    source, result = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook(CELL, CHECK, "print(p, lams, activation, movie)"), source)
    run = lambda: papermill.execute_notebook(source, result, given, progress_bar=False)  # noqa: E731
    if message:
        with pytest.raises(papermill.PapermillExecutionError, match=message):
            run()
    else:
        assert run().cells[-1].outputs[0].text == "5 [0.5] tanh True\n"
