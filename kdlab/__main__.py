"""python -m kdlab doctor: what this machine has and lacks; exit status 0 when the course can run."""

import sys

from .lab import doctor

USAGE = "usage: python -m kdlab doctor\n  doctor   versions, device, memory, data; exit status 0 when all is well"


def main(arguments):
    """The exit status of the command: 0 fine, 1 something needed is missing, 2 no such command."""
    if arguments != ["doctor"]:
        print(USAGE, file=sys.stderr)
        return 2
    return 0 if doctor() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
