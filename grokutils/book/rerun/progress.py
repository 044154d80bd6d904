"""What a command says while it runs: a line for each finished case, a bar on a terminal, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import threading
import time

from tqdm import tqdm

from .cases import Case


class Watch:
    """A line on standard error for each case that ends, and on a terminal a bar that knows the cells in work."""

    def __init__(self, cases: list[Case], swept: list[str]):
        self.cases = {case.id: case for case in cases}
        self.swept = swept
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self._lock = threading.Lock()  # cells are told by another thread
        self._cells: dict[str, str] = {}

    def __enter__(self):
        off = not sys.stderr.isatty()
        self._bar = tqdm(total=len(self.cases), desc="cases", disable=off, leave=False, dynamic_ncols=True)
        self._began = time.monotonic()
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def label(self, case_id: str) -> str:
        """A case in words: the parameters that are swept."""
        return label(case_id, self.cases[case_id].values, self.swept)

    def note(self, text: str) -> None:
        """Something that a reader should know now."""
        self._bar.write(f"grokutils: {text}", file=sys.stderr)

    def submitted(self, case: Case) -> None:
        """A worker will run ``case``."""

    def cell(self, case: str, cell: int, cells: int) -> None:
        """A worker is in that cell."""
        with self._lock:
            if case in self.cases and case not in self.done and case not in self.failed:
                self._cells[case] = f"{self.label(case)}: cell {cell} of {cells}"
                self._bar.set_postfix_str("; ".join(self._cells.values()))

    def again(self, case: Case, why: str) -> None:
        """``case`` is tried once more."""
        self.note(f"{self.label(case.id)} again: {why}")

    def finished(self, case: Case, result: dict) -> None:
        """``case`` is kept: by another command, if its status is "elsewhere"."""
        if result["status"] in ("done", "elsewhere"):
            self.done.append(case.id)
        else:
            self.failed[case.id] = result["error"]
        self.ended(case, result)

    def ended(self, case: Case, result: dict) -> None:
        """Tell what became of ``case``."""
        if result["status"] == "elsewhere":
            what = "finished by another command"
        elif result["status"] == "done":
            faults = "".join(f"; {name} is NaN ({why})" for name, why in result.get("faults", {}).items())
            what = f"finished in {result['seconds']:.1f} s{faults}"
        else:
            what = f"failed, {first_line(result['error'])}"
        with self._lock:
            self._cells.pop(case.id, None)
            ended, total = len(self.done) + len(self.failed), len(self.cases)
            left = (time.monotonic() - self._began) / ended * (total - ended)
            rest = f"; about {duration(left)} left" if ended < total else ""
            self._bar.write(f"[{ended}/{total}] {self.label(case.id)}: {what}{rest}", file=sys.stderr)
            self._bar.update()


class Json(Watch):
    """For programs: one JSON object a line on standard output."""

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def say(self, event: str, **facts) -> None:
        """Write one event."""
        with self._lock:
            print(json.dumps({"event": event, **facts}), flush=True)

    def note(self, text: str) -> None:
        self.say("note", text=text)

    def submitted(self, case: Case) -> None:
        self.say("submitted", case=case.id, parameters=case.values)

    def cell(self, case: str, cell: int, cells: int) -> None:
        if case in self.cases:
            self.say("cell", case=case, cell=cell, cells=cells)

    def again(self, case: Case, why: str) -> None:
        self.say("again", case=case.id, why=why)

    def ended(self, case: Case, result: dict) -> None:
        told = {key: result[key] for key in ("error", "seconds", "tries") if key in result}
        self.say(result["status"], **told, case=case.id)


def label(case_id: str, values: dict, swept: list[str]) -> str:
    """A case in words: the parameters that are swept."""
    return " ".join(f"{name}={values[name]}" for name in swept) or case_id


def first_line(text: str) -> str:
    """What an error says first; "no reason given" for one that says nothing."""
    return next(iter(text.splitlines()), "no reason given")


def duration(seconds: float | None) -> str:
    """A time in words."""
    if seconds is None:
        return "time not measured"
    for least, unit, name in ((172800, 86400, "days"), (5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
