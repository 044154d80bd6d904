"""The folder that keeps results: each case's appear whole or not at all, and one command at a time works on a case.

``cases/ID/`` and ``failed/ID/`` hold what a case left, ``plans/`` what was asked for. A case is claimed by a lock on one
byte of ``.lock``: the system frees it when its holder ends, however that happens. Files get the user's own umask.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
import uuid
from pathlib import Path

from .cases import Case
from .chapter import Refused

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOM = 100_000_000  # bytes that must be free before a sweep starts
FULL = (errno.ENOSPC, errno.EDQUOT)
HELD = (errno.EACCES, errno.EAGAIN)  # how a system says that another process has the lock
STATES = ("finished", "running", "failed", "missing")
PARTS = ("cases", "failed", "plans")
ID = re.compile(r"[0-9a-f]{16}")


class DiskFull(Exception):  # noqa: N818
    """No space left for a case's results; what was there is untouched."""


class Store:
    """A folder of results of one chapter."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: int | None = None
        self._writable = True

    def prepare(self, chapter: str) -> None:
        """Make the folder ready to be written to; raises Refused where that cannot be."""
        if fcntl is None:
            raise Refused("run and sweep need the file locks of Linux or macOS; on Windows use WSL")
        marker, at = self.folder / "chapter.txt", f"--out '{self.folder}'"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            strange = [e for e in self.folder.iterdir() if e.name[0] != "." and e.name not in PARTS]
            if strange and not marker.exists():
                raise Refused(f"{at}: is not empty and holds no results; give a new folder")
            for name in (*PARTS, ".part"):
                (self.folder / name).mkdir(exist_ok=True)
            if not marker.exists():
                self.write(marker, chapter + "\n")
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except FileExistsError as error:
            raise Refused(f"{at}: is a file; must be a folder") from error
        except (OSError, DiskFull) as error:
            why = getattr(error, "strerror", None) or error
            raise Refused(f"{at}: cannot be written to ({why})") from error
        try:
            self.claim("0" * 16) and self.release("0" * 16)
        except OSError as error:
            why = f"its file system keeps no locks ({error.strerror})"
            raise Refused(f"{at}: {why}; give a folder on another disk") from error
        if (kept := marker.read_text(encoding="utf-8").strip()) != chapter:
            raise Refused(f"{at}: holds results of chapter {kept}; give another folder")
        self._sweep_up()

    def room(self) -> None:
        """Refuse to start where too little space is free."""
        free = shutil.disk_usage(self.folder).free
        if free < ROOM:
            room = f"only {free // 10**6} MB are free; at least {ROOM // 10**6} are needed"
            raise Refused(f"--out '{self.folder}': {room}")

    def existing(self) -> Store:
        """This store, if it holds results; somebody else's archive, or a read-only one, serves too."""
        if not (self.folder / "chapter.txt").is_file():
            raise Refused(f"--out '{self.folder}': holds no results of `grokutils run` or `grokutils sweep`")
        for mode in (os.O_RDWR, os.O_RDONLY):
            try:
                self._lock, self._writable = os.open(self.folder / ".lock", mode), mode == os.O_RDWR
                break
            except OSError:  # read-only, or copied without the lock: nobody runs there
                continue
        return self

    # ---- who works on what

    def claim(self, case_id: str) -> bool:
        """Take a case, unless another command has it; raises OSError where locks do not work."""
        kind = fcntl.LOCK_EX if self._writable else fcntl.LOCK_SH
        try:
            fcntl.lockf(self._lock, kind | fcntl.LOCK_NB, 1, int(case_id[:15], 16))
        except OSError as error:
            if error.errno in HELD:
                return False
            raise
        return True

    def release(self, case_id: str) -> None:
        """Give a case back."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, int(case_id[:15], 16))

    def running(self, case_id: str) -> bool:
        """Whether another command works on a case, as far as can be told here."""
        if fcntl is None or self._lock is None:
            return False
        with contextlib.suppress(OSError):
            if not self.claim(case_id):
                return True
            self.release(case_id)
        return False

    def state(self, case_id: str) -> str:
        """What became of a case: one of :data:`STATES`."""
        if self.done(case_id):
            return "finished"
        if self.running(case_id):
            return "running"
        return "failed" if self.failure(case_id) else "missing"

    # ---- what is there

    def place(self, case_id: str, failed: bool = False) -> Path:
        """Where a case's results are, or would be."""
        return self.folder / ("failed" if failed else "cases") / case_id

    def done(self, case_id: str) -> bool:
        """Whether a case's results are there."""
        return (self.place(case_id) / "case.json").is_file()

    def stamp(self, case_id: str) -> list:
        """What changes when a case's results or its failure do."""
        paths = [self.place(case_id, failed) / "case.json" for failed in (False, True)]
        return [path.stat().st_mtime_ns for path in paths if path.exists()]

    def facts(self, case_id: str) -> dict:
        """What is known of a finished case's run: its time, machine, date, commit."""
        return read_json(self.place(case_id) / "case.json") or {}

    def failure(self, case_id: str) -> dict | None:
        """How a case failed the last time; None if it did not."""
        return read_json(self.place(case_id, failed=True) / "case.json")

    def plans(self) -> list[dict]:
        """Every sweep that was asked for, the latest last."""
        paths = sorted((self.folder / "plans").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        found = [read_json(path) for path in paths]
        return [
            {**plan, "cases": {key: values for key, values in plan["cases"].items() if ID.fullmatch(key)}}
            for plan in found
            if isinstance(plan, dict) and isinstance(plan.get("cases"), dict)
        ]

    def cases(self) -> dict[str, dict]:
        """Parameters of all cases by id, without the sweeps that an older version of the code ran."""
        plans = self.plans()
        return {i: v for plan in plans if plan["code"] == plans[-1]["code"] for i, v in plan["cases"].items()}

    def measures(self) -> dict[str, str]:
        """Expressions of the measures that were asked for, by name; of two with one name the later."""
        return {name: text for plan in self.plans() for name, text in plan.get("measures", {}).items()}

    # ---- writing

    def write(self, path: Path, content: str | bytes) -> None:
        """Write a file so that ``path`` holds the old content or the new one."""
        data = content.encode(errors="replace") if isinstance(content, str) else content
        scratch = path.with_name(f".{uuid.uuid4().hex}")
        try:
            _put(scratch, data)
            os.replace(scratch, path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _told(error, self.folder) from error

    def keep_result(self, case: Case, result: dict) -> Path:
        """Put what a worker returned for ``case`` in its place."""
        facts = {key: value for key, value in result.items() if key != "files"}
        record = json.dumps({"id": case.id, "parameters": case.values, "code": case.code, **facts}, indent=1)
        files = {**result["files"], "case.json": record.encode()}
        before = read_json(self.place(case.id) / "measures.json")
        if before and result["status"] == "done":  # measures asked for earlier stay
            files["measures.json"] = json.dumps({**before, **json.loads(files["measures.json"])}).encode()
        return self.keep(case.id, files, result["status"] != "done")

    def keep(self, case_id: str, files: dict[str, bytes], failed: bool) -> Path:
        """Put a case's files in its place, all or none."""
        place, part = self.place(case_id, failed), self.folder / ".part" / uuid.uuid4().hex
        try:
            part.mkdir()
            for name, data in files.items():
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(target, data)
            _flush(part)
            self._remove(place)
            os.rename(part, place)
            _flush(place.parent)
            if not failed:
                self._remove(self.place(case_id, failed=True))
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _told(error, self.folder) from error
        return place

    def _remove(self, place: Path) -> None:
        if place.exists():
            old = self.folder / ".part" / f"{place.parent.name}.{place.name}.{uuid.uuid4().hex}"
            os.rename(place, old)
            shutil.rmtree(old)

    def _sweep_up(self) -> None:
        """Put back what a killed command was about to replace; remove what it was writing, after an hour."""
        for left in (self.folder / ".part").iterdir():
            kind, _, case_id = left.stem.partition(".")
            if kind == "cases" and not self.done(case_id) and self.claim(case_id):
                with contextlib.suppress(OSError):
                    os.rename(left, self.place(case_id))
                self.release(case_id)
            elif time.time() - left.lstat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)


def read_json(path: Path):
    """The content of a JSON file; None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _put(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(error: OSError, folder: Path) -> Exception:
    return DiskFull(f"no space left in {folder}") if error.errno in FULL else error
