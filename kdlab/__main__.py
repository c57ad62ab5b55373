"""kdlab doctor | start DIR | serve MODEL | pool, or python -m kdlab: what this machine has and
lacks; the course in a folder of your own; a teacher behind HTTP; a class that measures together."""

import argparse
import difflib
import sys

import kdlab


def _doctor(chosen):
    from kdlab.lessons.doctor import doctor

    return 0 if doctor() else 1


def _start(chosen):
    from kdlab.lessons.start import start

    return start(chosen.folder, show=not chosen.no_open)


def _serve(chosen):
    from kdlab.teachers.server import main as serve

    return serve([chosen.model, "--port", str(chosen.port)]) or 0


def _pool(chosen):
    from kdlab.lessons.pool_server import run

    try:
        return run(chosen)
    except ValueError as error:  # of an option
        print(f"kdlab {error}", file=sys.stderr)
        return 1


def parser():
    """The commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="kdlab", description="A course on knowledge distillation.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"kdlab {kdlab.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, run, words):
        found = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        found.set_defaults(run=run)
        return found

    add("doctor", _doctor, "versions, device, memory, data; exit status 0 when all is well")
    started = add(
        "start",
        _start,
        "copy lessons, homework and demos into DIR, never over a file that you changed, and open"
        " JupyterLab there",
    )
    started.add_argument("folder", metavar="DIR", help="made where it is missing")
    started.add_argument("--no-open", action="store_true", help="copy, and leave JupyterLab alone")
    served = add("serve", _serve, "answer as OpenAI's API does, on this machine only, until Ctrl-C")
    served.add_argument("model", metavar="MODEL", help="a directory or a hub id")
    served.add_argument("--port", type=int, default=0, help="a free one when not given")
    _pool_arguments(
        add("pool", _pool, "gather what each laptop of a class finds on a split of its own")
    )
    return top


def _pool_arguments(pool):
    pool.add_argument("--question", help='what the class asks; "Does the teacher help?"')
    pool.add_argument("--low", type=float, help="the least difference that can be, −100")
    pool.add_argument("--high", type=float, help="the greatest, 100")
    pool.add_argument("--measure", choices=["points", "nats"], help="points")
    pool.add_argument("--dir", help="where it is kept, and goes on; pools/DATE when not given")
    pool.add_argument("--port", type=int, help="a free one, or that of before")
    pool.add_argument(
        "--host",
        default="127.0.0.1",
        help="who reaches it: this machine only, unless you say 0.0.0.0, the class's network",
    )
    pool.add_argument(
        "--simulate",
        type=int,
        default=0,
        metavar="N",
        help="N laptops that train nothing and send numbers that are drawn, to see how it looks",
    )


COMMANDS = ("doctor", "start", "serve", "pool")


def main(arguments):
    """The exit status of the command: 0 fine, 1 it could not be done, 2 no such command."""
    word = arguments[0] if arguments else ""
    if word and not word.startswith("-") and word not in COMMANDS:
        near = difflib.get_close_matches(word, COMMANDS, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        parser().print_usage(sys.stderr)
        print(f"kdlab: no command {word!r}; {meant}", file=sys.stderr)
        return 2
    try:
        chosen = parser().parse_args(arguments)
    except SystemExit as end:  # --help and --version end with 0, a wrong command with 2
        return end.code
    try:
        return chosen.run(chosen)
    except (OSError, ImportError) as error:
        print(f"kdlab {chosen.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def command():
    """What the console script `kdlab` runs."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    command()
