"""A file of records, a line each: what was once written is there after a crash."""

import json
import os
from pathlib import Path


class Journal:
    """Records in a file, one a line, on the disk before `append` returns.

    `records`: those that were there, with the numbers of their lines. `damaged`: the numbers of
    lines that hold none, such as one that a crash has cut; they stay in the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Journal(Path(folder, "a.jsonl")).append({"kind": "closed"})
    ...     _ = Path(folder, "a.jsonl").open("a").write('{"kind": "jo')
    ...     again = Journal(Path(folder, "a.jsonl"))
    >>> again.records, again.damaged
    ([(1, {'kind': 'closed'})], [2])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[tuple[int, dict]] = []
        self.damaged: list[int] = []
        whole = path.read_bytes() if path.exists() else b""
        self._cut = bool(whole) and not whole.endswith(b"\n")
        for number, line in enumerate(whole.split(b"\n"), start=1):
            if line:
                self._read(number, line)

    def _read(self, number, line):
        try:
            record = json.loads(line)
        except ValueError:  # half a line, or half a letter
            record = None
        if isinstance(record, dict):
            self.records.append((number, record))
        else:
            self.damaged.append(number)

    def append(self, record: dict) -> None:
        """Write a record; OSError where the disk does not take it: it may be there, or not."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        start = b"\n" if self._cut else b""  # a cut line stays alone
        self._cut = True  # until all of this one is there
        with self.path.open("ab") as file:
            file.write(start + line)
            file.flush()
            os.fsync(file.fileno())
        self._cut = False
