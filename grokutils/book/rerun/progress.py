"""What a command says while it runs: live lines on a terminal, JSON lines for programs, nothing for files."""

from __future__ import annotations

import json
import sys
import threading

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .cases import Case


class Watch:
    """Counts what happens to the cases of one command; the other classes also show it."""

    def __init__(self, cases: list[Case], swept: list[str]):
        self.cases = {case.id: case for case in cases}
        self.swept = swept
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self._lock = threading.Lock()  # cells are told by another thread

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def label(self, case_id: str) -> str:
        """A case in words: the parameters that are swept."""
        values = self.cases[case_id].values
        return " ".join(f"{name}={values[name]}" for name in self.swept) or case_id

    def submitted(self, case: Case) -> None:
        """A worker will run ``case``."""

    def cell(self, case: str, cell: int, cells: int) -> None:
        """A worker is in that cell."""

    def again(self, case: Case, why: str) -> None:
        """``case`` is tried once more."""

    def elsewhere(self, case: Case) -> None:
        """Another command has finished ``case``."""
        self.done.append(case.id)

    def finished(self, case: Case, result: dict) -> None:
        """``case`` is kept."""
        if result["status"] == "done":
            self.done.append(case.id)
        else:
            self.failed[case.id] = result["error"]


class Lines(Watch):
    """On a terminal: a line for each running case and one for all."""

    def __enter__(self):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bars.start()
        self._all = self._bars.add_task("all cases", total=len(self.cases))
        self._tasks: dict[str, int] = {}
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()

    def cell(self, case: str, cell: int, cells: int) -> None:
        with self._lock:
            if case not in self.cases or case in self.done or case in self.failed:
                return
            if case not in self._tasks:
                self._tasks[case] = self._bars.add_task(f"  {self.label(case)}, cell")
            self._bars.update(self._tasks[case], completed=cell, total=cells)

    def elsewhere(self, case: Case) -> None:
        super().elsewhere(case)
        self._over(case)

    def finished(self, case: Case, result: dict) -> None:
        super().finished(case, result)
        self._over(case)

    def _over(self, case: Case) -> None:
        with self._lock:
            if (task := self._tasks.pop(case.id, None)) is not None:
                self._bars.remove_task(task)
            self._bars.update(self._all, advance=1)


class Json(Watch):
    """For programs: one JSON object a line on standard output."""

    def say(self, event: str, **facts) -> None:
        """Write one event."""
        with self._lock:
            print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)

    def submitted(self, case: Case) -> None:
        self.say("submitted", case=case.id, parameters=case.values)

    def cell(self, case: str, cell: int, cells: int) -> None:
        if case in self.cases:
            self.say("cell", case=case, cell=cell, cells=cells)

    def again(self, case: Case, why: str) -> None:
        self.say("again", case=case.id, why=why)

    def elsewhere(self, case: Case) -> None:
        super().elsewhere(case)
        self.say("elsewhere", case=case.id)

    def finished(self, case: Case, result: dict) -> None:
        super().finished(case, result)
        self.say(
            result["status"], **{key: result[key] for key in ("error", "seconds", "tries")}, case=case.id
        )


def watch(cases: list[Case], swept: list[str], as_json: bool) -> Watch:
    """The watch that fits where the output goes."""
    kind = Json if as_json else Lines if sys.stderr.isatty() else Watch
    return kind(cases, swept)
