"""python -m kdlab doctor | start DIR: what this machine has and lacks; the course in a folder of your own."""

import sys

from .lab import doctor
from .start import start

USAGE = """usage: python -m kdlab doctor
       python -m kdlab start DIR [--no-open]
  doctor   versions, device, memory, data; exit status 0 when all is well
  start    copy lessons, homework and demos into DIR, never over a file that you changed, and open JupyterLab there"""


def main(arguments):
    """The exit status of the command: 0 fine, 1 it could not be done, 2 no such command."""
    match arguments:
        case ["doctor"]:
            return 0 if doctor() else 1
        case ["start", folder] | ["start", folder, "--no-open"] if not folder.startswith("-"):
            try:
                return start(folder, show=len(arguments) == 2)
            except OSError as error:
                print(f"kdlab start: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                return 0
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
