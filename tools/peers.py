"""Other libraries beside ours, in a small environment of their own: tests/test_peers.py has their
losses, tests/test_on_policy_trl.py TRL's trainer in examples/on_policy_trl.py.

build/peers borrows the packages of this interpreter and adds those of tools/peers.txt, so that
what TRL and Liger ask for never changes the course's own environment. torchdistill comes without
what it asks for, torchvision among it: its losses need torch alone. Without a registry to get
them from it says `skipped: no network`."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "peers"
PEERS = ROOT / "tools" / "peers.txt"
ALONE = "torchdistill==1.1.5"
TESTS = ["tests/test_peers.py", "tests/test_on_policy_trl.py"]
PYTHON = PLACE / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# what pip says when no registry answers
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|Connection refused|name resolution|unreachable|getaddrinfo"
    r"|ProxyError|Max retries|ReadTimeout",
    re.IGNORECASE,
)


def wanted():
    """What the environment is made of; another text makes it anew."""
    lent = sysconfig.get_path("purelib")
    return f"{sys.version}\n{lent}\n{PEERS.read_text(encoding='utf-8')}{ALONE}"


def make():
    """The environment, with this interpreter's packages in reach."""
    venv.create(PLACE, clear=True, with_pip=False)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([PYTHON, "-c", ask], check=True, capture_output=True, text=True)
    borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (Path(own.stdout.strip()) / "borrowed.pth").write_text(borrowed)


def install():
    """pip's exit status and words; it runs here and installs there."""
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-q", "--retries", "1"]
    said = ""
    for what in (["-c", "constraints.txt", "-r", str(PEERS)], ["--no-deps", ALONE]):
        done = subprocess.run(
            [*pip, *what], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said += done.stdout
        if done.returncode:
            break
    return done.returncode, said


def main():
    stamp = PLACE / ".ready"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted():
        make()
        status, said = install()
        if status:
            print(said, end="")
            if UNREACHABLE.search(said):
                print("skipped: no network")
                return 0
            print("peers: error, pip could not install what tools/peers.txt names")
            return status
        stamp.write_text(wanted(), encoding="utf-8")
    tests = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    return subprocess.run(tests, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
