"""A learning platform's download as folders of students: Canvas, Moodle, Blackboard, a plain zip.

A file's name tells the student, and which of several attempts is the newest:

    Canvas       doejane_LATE_4711_90210_hw1-2.ipynb                   user 4711, submission 90210
    Moodle       Jane Doe_4711_assignsubmission_file_/hw1.ipynb        participant 4711
    Blackboard   gradebook_KD_hw1_jdoe_attempt_2026-11-20-14-03-22_hw1.ipynb
    otherwise    jane/…/hw1.ipynb, or jane.zip
"""

import io
import os
import re
import shutil
import unicodedata
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

MOST_BYTES, MOST_FILES, DEEPEST = 2**30, 20_000, 4
CANVAS = re.compile(
    r"(?P<who>[^\W_][^_]*)_(?P<late>LATE_)?(?P<user>\d+)_(?P<number>\d+)_(?P<file>[^/]+)"
)
MOODLE = re.compile(
    r"(?P<who>.+?_\d+)_assignsubmission_(?P<kind>file|onlinetext)_/?(?P<file>.*)", re.DOTALL
)
BLACKBOARD = re.compile(
    r".+?_(?P<who>[^_/]+)_attempt_(?P<when>\d{4}(?:-\d\d){5})(?:_(?P<file>[^/]+)|\.txt)"
)
# what browsers and platforms put behind a name that is taken: "hw1 (1)", "hw1-2"
COPY = re.compile(r"(?: \((\d+)\)|-(\d+))(?=\.\w+$)")


class ArchiveError(Exception):
    """The archive cannot be unpacked; the message says why."""


@dataclass(frozen=True)
class Handed:
    """One file as it was handed in: by whom, under which name, and what tells how new it is."""

    student: str
    file: PurePosixPath
    order: tuple  # the platform's own mark, then the time
    when: float
    late: bool = False


def handed(name: str, when: float) -> Handed:
    """Read a file's name in an archive, whose time is `when`.

    >>> handed("doejane_LATE_4711_90210_hw1-2.ipynb", 0.0).student
    'doejane_4711'
    """
    name = unicodedata.normalize("NFC", name)
    if found := MOODLE.fullmatch(name):
        file = found["file"] or found["kind"]
        return _handed(found["who"], PurePosixPath(file), (), when)
    if found := BLACKBOARD.fullmatch(name):
        at = datetime.strptime(found["when"], "%Y-%m-%d-%H-%M-%S").timestamp()
        return _handed(found["who"], PurePosixPath(found["file"] or "attempt.txt"), (at,), at)
    if found := CANVAS.fullmatch(name):
        who, number = f"{found['who']}_{found['user']}", int(found["number"])
        return _handed(who, PurePosixPath(found["file"]), (number,), when, bool(found["late"]))
    first, *rest = PurePosixPath(name).parts
    if not rest:
        return _handed(PurePosixPath(first).stem, PurePosixPath(first), (), when)
    return _handed(first, PurePosixPath(*rest), (), when)


def _handed(student, file, mark, when, late=False):
    copy = COPY.search(file.name)
    number = int(copy[1] or copy[2]) if copy else 0
    return Handed(student, file, (*mark, when, number), when, late)


def unpack(archive: Path, target: Path, alone: bool = False) -> list[str]:
    """Write target/<student>/<file> for all that the archive holds; lines about what was odd.

    alone: where no name in it is a platform's, it is one student's, who is called as the archive
    is. Archives within it are unpacked too. A file's time is when it was handed in, and of one
    student's files the newest by the platform's mark is the newest by time too.
    """
    lines: list[str] = []
    room = [MOST_BYTES, MOST_FILES]
    owner = None
    if alone and not _of_a_platform(archive):
        owner = _handed(archive.stem, PurePosixPath(archive.name), (), archive.stat().st_mtime)
    members = list(_members(archive, room, lines, archive.name, owner=owner))
    if not members and not lines:
        raise ArchiveError(f"{archive.name}: holds no files")
    by_student: dict[str, list] = {}
    for one, content in members:
        by_student.setdefault(one.student, []).append((one, content))
    for student, files in by_student.items():
        last = 0.0
        for one, content in sorted(files, key=lambda pair: pair[0].order):
            last = max(one.when, last + 2)  # seconds, as far as a zip tells times
            _write(target / _one_name(student), one, content, last)
            if one.late:
                lines.append(f"{student}: {one.file.name} is marked late by the platform")
    return lines


def _of_a_platform(archive):
    """True where a file's name is Canvas's, Moodle's or Blackboard's."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name.replace("\\", "/") for name in opened.namelist()]
    except (zipfile.BadZipFile, OSError):
        return False
    return any(kind.fullmatch(name) for name in names for kind in (CANVAS, MOODLE, BLACKBOARD))


def _members(archive, room, lines, told, depth=0, owner=None):
    """(Handed, bytes) of each file."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                name = _inside(info, told)
                if info.is_dir() or _hidden(name):
                    continue
                room[0], room[1] = room[0] - info.file_size, room[1] - 1
                if min(room) < 0:
                    raise ArchiveError(
                        f"{told}: holds more than {MOST_BYTES // 2**20} MB or {MOST_FILES} files"
                    )
                one = handed(name, datetime(*info.date_time).timestamp())
                if owner is not None:
                    parts = PurePosixPath(unicodedata.normalize("NFC", name)).parts
                    one = _handed(owner.student, PurePosixPath(*parts), owner.order, owner.when)
                with opened.open(info) as file:
                    content = file.read(info.file_size + 1)
                yield from _nested(one, content, room, lines, told, depth)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, OSError) as error:
        if depth == 0:
            raise ArchiveError(f"{told}: not an archive that can be read ({error})") from None
        lines.append(f"{told}: an archive within it cannot be read ({error})")


def _nested(one, content, room, lines, told, depth):
    if one.file.suffix.lower() != ".zip":
        yield one, content
    elif depth + 1 >= DEEPEST:
        lines.append(f"{told}: {one.file} lies {DEEPEST} archives deep, left out")
    else:
        inner = f"{told}, {one.file.name}"
        yield from _members(io.BytesIO(content), room, lines, inner, depth + 1, one)


def _inside(info, told):
    """A name that stays below where it is unpacked."""
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    if info.filename.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", info.filename):
        raise ArchiveError(f"{told}: {info.filename!r} would be written outside")
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        raise ArchiveError(f"{told}: {info.filename!r} is a link")
    return "/".join(parts)


def _hidden(name):
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _one_name(text):
    """A name without what a path cannot hold."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text).strip() or "_"


def _write(place, one, content, when):
    path = place.joinpath(*map(_one_name, one.file.parts))
    stem, number = path, 1
    while path.exists():  # another attempt of the same name
        path = stem.with_name(f"{stem.stem} ({number}){stem.suffix}")
        number += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))


def gather(source: Path, target: Path) -> tuple[Path, list[str]]:
    """A folder of students from what there is: an archive, a folder of them, or such a folder.

    Returns the folder and lines about what was odd. `target` holds what was unpacked.
    """
    if source.is_dir():
        archives, alone = sorted(p for p in source.iterdir() if p.suffix.lower() == ".zip"), True
        if not archives:
            return source, []
    elif source.is_file() and source.suffix.lower() == ".zip":
        archives, alone = [source], False
    else:
        raise ArchiveError(f"expected a folder or a .zip of submissions, got {source}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target, [line for archive in archives for line in unpack(archive, target, alone)]
