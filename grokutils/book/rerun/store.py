"""The folder that keeps results: each case's appear whole or not at all, and one command at a time works on a case.

``cases/ID/`` and ``failed/ID/`` hold what a case left, ``plans/`` what was asked for. A case is claimed by a lock on one
byte of ``.lock``: the system frees it when its holder ends, however that happens.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from .cases import Case
from .chapter import Refused

ROOM = 100_000_000  # bytes that must be free before a sweep starts
FULL = (errno.ENOSPC, errno.EDQUOT)
PARTS = ("cases", "failed", "plans")
ID = re.compile(r"[0-9a-f]{16}")


class DiskFull(Exception):  # noqa: N818
    """No space left for a case's results; what was there is untouched."""


class Store:
    """A folder of results of one chapter."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = None

    def prepare(self, chapter: str) -> None:
        """Make the folder ready to be written to; raises Refused where that cannot be."""
        marker = self.folder / "chapter.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            strange = [e for e in self.folder.iterdir() if e.name[0] != "." and e.name not in PARTS]
            if strange and not marker.exists():
                raise Refused(f"--out '{self.folder}': is not empty and holds no results; give a new folder")
            for name in (*PARTS, ".part"):
                (self.folder / name).mkdir(exist_ok=True)
            if not marker.exists():
                self.write(marker, chapter + "\n")
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            free = shutil.disk_usage(self.folder).free
        except FileExistsError as error:
            raise Refused(f"--out '{self.folder}': is a file; must be a folder") from error
        except (OSError, DiskFull) as error:
            why = getattr(error, "strerror", None) or error
            raise Refused(f"--out '{self.folder}': cannot be written to ({why})") from error
        if (kept := marker.read_text(encoding="utf-8").strip()) != chapter:
            raise Refused(f"--out '{self.folder}': holds results of chapter {kept}; give another folder")
        if free < ROOM:
            raise Refused(
                f"--out '{self.folder}': only {free // 10**6} MB are free; at least {ROOM // 10**6} are needed"
            )
        self._sweep_up()

    def existing(self) -> Store:
        """This store, if it holds results."""
        if not (self.folder / "chapter.txt").is_file():
            raise Refused(f"--out '{self.folder}': holds no results of `grokutils run` or `grokutils sweep`")
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        return self

    # ---- who works on what

    def claim(self, case_id: str) -> bool:
        """Take a case, unless another command has it."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(case_id[:15], 16))
        except OSError:
            return False
        return True

    def release(self, case_id: str) -> None:
        """Give a case back."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, int(case_id[:15], 16))

    def running(self, case_id: str) -> bool:
        """Whether another command works on a case."""
        if not self.claim(case_id):
            return True
        self.release(case_id)
        return False

    # ---- what is there

    def place(self, case_id: str, failed: bool = False) -> Path:
        """Where a case's results are, or would be."""
        return self.folder / ("failed" if failed else "cases") / case_id

    def done(self, case_id: str) -> bool:
        """Whether a case's results are there."""
        return (self.place(case_id) / "case.json").is_file()

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

    # ---- writing

    def write(self, path: Path, content: str | bytes) -> None:
        """Write a file so that ``path`` holds the old content or the new one."""
        data = content.encode() if isinstance(content, str) else content
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                _put(file, data)
            os.replace(scratch, path)
        except OSError as error:
            Path(scratch).unlink(missing_ok=True)
            raise _told(error, self.folder) from error

    def keep_result(self, case: Case, result: dict) -> Path:
        """Put what a worker returned for ``case`` in its place."""
        facts = {key: value for key, value in result.items() if key != "files"}
        record = json.dumps({"id": case.id, "parameters": case.values, **facts}, indent=1, ensure_ascii=False)
        files = {**result["files"], "case.json": record.encode()}
        return self.keep(case.id, files, result["status"] != "done")

    def keep(self, case_id: str, files: dict[str, bytes], failed: bool) -> Path:
        """Put a case's files in its place, all or none."""
        place = self.place(case_id, failed)
        part = None
        try:
            part = Path(tempfile.mkdtemp(dir=self.folder / ".part", prefix=f"{os.getpid()}-"))
            part.chmod(0o755)
            for name, data in files.items():
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as file:
                    _put(file, data)
            _flush(part)
            self._remove(place)
            os.rename(part, place)
            _flush(place.parent)
            if not failed:
                self._remove(self.place(case_id, failed=True))
        except OSError as error:
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
            raise _told(error, self.folder) from error
        return place

    def _remove(self, place: Path) -> None:
        if place.exists():
            old = Path(tempfile.mkdtemp(dir=self.folder / ".part", prefix=f"{os.getpid()}-")) / "old"
            os.rename(place, old)
            shutil.rmtree(old.parent)

    def _sweep_up(self) -> None:
        """Remove what commands left that were killed while they wrote, an hour or more ago."""
        for left in (self.folder / ".part").iterdir():
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)


def read_json(path: Path):
    """The content of a JSON file; None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _put(file, data: bytes) -> None:
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
