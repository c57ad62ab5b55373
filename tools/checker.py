"""The process of the checks: python checker.py, asked line by line in JSON on its standard input.

It holds the reference's own cells and, in place of what the submission defines, functions that ask
the submission's process. What that process does to itself changes what it answers and nothing else.
"""

import ast
import contextlib
import io
import json
import linecache
import os
import sys
import traceback
from multiprocessing.connection import Listener

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import across

MOST_PRINTED = 20_000  # characters of one cell
MOST_CODE = 20_000  # bytes of a module's own code that weigh nothing
LONGEST = 500  # characters of an error's message


class Printed(io.StringIO):
    """What is printed, up to a limit."""

    def write(self, text):
        return super().write(text) if self.tell() < MOST_PRINTED else len(text)


class Theirs:
    """A function of the submission, by its name."""

    def __init__(self, checker, name):
        self.checker, self.__name__ = checker, name

    def __call__(self, *args, **kwargs):
        return self.checker.end_or_error().call(self.__name__, args, kwargs)


class Checker:
    """The checks' namespace, and the connection to the submission's process."""

    def __init__(self):
        self.space = {"__name__": "__main__"}
        self.names, self.kept, self.end, self.listener = {}, {}, None, None
        # modules that move: their names, their bytes, the process they move to, what they weigh
        self.built, self.packs, self.house, self.weights = [], {}, None, {}

    def end_or_error(self):
        if self.end is None:
            raise across.GoneError("the submission's process has ended")
        return self.end

    # --- what the grader asks for ---

    def listen(self, address, key):
        self.listener = self.listener or Listener(address, authkey=bytes.fromhex(key))
        return {"address": self.listener.address}

    def accept(self):
        """Take the submission's process, which calls in next."""
        self.end = across.End(self.listener.accept(), self.names, False, ("call", "back"))
        return {}

    def move(self):
        """Take the modules that were built away from the process that built them, as bytes."""
        for name in self.built:
            try:
                number, handle = self.space[name]._away
                self.packs[name] = self.end.request("pack", handle=handle)
            except Exception as error:
                self.space[name] = Unpacked(error)
        self.built = []
        self._done(self.end)
        return {}

    def accept_house(self):
        """Take the process that modules move to, which calls in next; they move in."""
        self.house = across.End(self.listener.accept(), {}, False, ("call", "back"))
        for name, got in self.packs.items():
            pack = across.Pack(self.house)
            pack.metas, pack.blobs = got.message["tensors"], got.blobs
            try:
                threads = across.torch_here().get_num_threads()
                came = self.house.request("load", pack, blob=got.message["blob"], threads=threads)
                self.space[name] = self.kept[name] = came.value(came.message["tree"])
                self.weights[self.house.number, came.message["tree"][2]] = weight(got)
            except Exception as error:
                self.space[name] = self.kept[name] = Unpacked(error)
        self._done(self.house)
        return {}

    def run(
        self, label, source, names=(), there=(), free=(), put_back=(), hidden=None, changes=False
    ):
        """Run a cell of the reference → {"outcome", "printed", "reached", "error"}.

        names: what it defines, for both processes. put_back: names of earlier cells that it relies
        on. there: functions to be called where a module
        lives. free: what the submission defines. hidden: the first and last line that the
        submission's author does not see. changes: arguments may come back changed.
        """
        printed, before = Printed(), self.end.answered if self.end else 0
        answer = {"outcome": "ok", "error": None}
        try:
            if self.end:
                self.end.effects_on_all = changes
                self._theirs(free)
            self.space |= {name: self.kept[name] for name in put_back if name in self.kept}
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                self._execute(label, source)
            self._keep(names, there)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            answer = {"outcome": "error", "error": told(error, label, hidden)}
        answer["reached"] = bool(self.end) and self.end.answered > before
        for end in filter(None, (self.end, self.house)):
            self._done(end)
        self.built = [name for name in names if self._built(self.space.get(name))]
        return answer | {"printed": printed.getvalue(), "built": bool(self.built)}

    def _built(self, value):
        """Whether it is a module that lives in the submission's process."""
        return (
            across.is_away(value)
            and not isinstance(value, across.Away)
            and value._away[0] == self.end.number
        )

    def _execute(self, label, source):
        name = f"<{label}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(ast.parse(source, name), name, "exec"), self.space)

    def _done(self, end):
        with contextlib.suppress(OSError):
            end.send("done")
        end.tapes.clear()

    def _theirs(self, free):
        """Functions that ask, and the submission's values as they are now."""
        told = self.end.request("tell", names=sorted(free))
        found = {name: (kind, tree) for name, kind, tree in told.message["told"]}
        for name in free:
            kind, tree = found.get(name, ("none", None))
            if kind == "function":
                self.space[name] = Theirs(self, name)
            elif kind == "value":
                self.space[name] = told.value(tree)
            elif kind == "odd":
                self.space[name] = object()
            else:
                self.space.pop(name, None)

    def _keep(self, names, there):
        """Both processes have these names; a context manager among them is entered in both."""
        for name in names:
            if name in self.space:
                mine = self.names[name] = self.space[name]
                if opens(mine):
                    self.space[name] = self._in_both(name, mine)
                if name in there:
                    self.space[name] = self._where_it_lives(name, mine)
                self.kept[name] = self.space[name]

    def _in_both(self, name, mine):
        @contextlib.contextmanager
        def in_both(*args, **kwargs):
            end = self.end_or_error()
            pack = across.Pack(end)
            with mine(*args, **kwargs):
                end.request("enter", pack, name=name, tree=pack.tree([list(args), kwargs]))
                try:
                    yield
                finally:
                    end.request("leave")

        return in_both

    def _where_it_lives(self, name, mine):
        def asks(*args, **kwargs):
            away = [one._away for one in (*args, *kwargs.values()) if across.is_away(one)]
            if not away:
                return mine(*args, **kwargs)
            found = across.ENDS[away[0][0]].call(name, args, kwargs)
            return max(found, self.weights.get(away[0], 0)) if name == "size_of" else found

        return asks


class Unpacked:
    """In place of a module that could not be taken out of its process."""

    def __init__(self, error):
        self.error = error


def weight(got):
    """The bytes of a module that was packed: of its tensors, and of more code than one writes."""
    blobs, code = got.blobs, got.message["blob"]
    rest = sum(len(blob) for i, blob in enumerate(blobs) if i != code)
    return rest + max(0, len(blobs[code]) - MOST_CODE)


def opens(value):
    """Whether it is a function that contextlib made a context manager of."""
    code = getattr(value, "__code__", None)
    return hasattr(value, "__wrapped__") and code is not None and code.co_filename == MANAGER


MANAGER = contextlib.contextmanager(lambda: None).__code__.co_filename


def told(error, label, hidden):
    """An error as JSON: its name, what it says to the author, and all of it for the instructor."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == f"<{label}>"
    ]
    text = str(error)[:LONGEST]
    away = getattr(error, "away", None)
    if away is not None and hidden and lines and hidden[0] <= lines[0] <= hidden[1]:
        text = "your function stops with it in a hidden test"
    trace = [line for line in traceback.format_exception(error) if __file__ not in line]
    trace += ["in the submission's process:\n", away] if away else []
    return {"name": type(error).__name__, "text": text, "trace": "".join(trace)[-20_000:]}


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing else speaks to the grader
    checker = Checker()
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(checker, command.pop("do"))(**command)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
