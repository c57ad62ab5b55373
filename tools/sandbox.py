"""A kernel for someone else's code: in a scratch directory, and in bubblewrap where the system has
it.

Inside bubblewrap it has no network, and sees a read-only system, this Python, the kdlab package and
its scratch directory; not the rest of the repository, the home directory or another process."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from runner import ROOT

SYSTEM = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/localtime",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/nix/store",
]
HIDDEN = ["notebooks", "build", "tests", ".git"]  # should this Python lie around the repository
INSTALL = "install it (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap)"
TOOLS = Path(__file__).resolve().parent
FILE_LIMIT = 2**20  # a file's size, in blocks of 512 or 1024 bytes
MEMORY = 8 * 2**30  # bytes a process may ask for at least, three quarters of the machine's at most
PROCESSES = 1000  # and threads, beyond those that the user has already


def python_homes():
    """Every directory that holds this Python and its packages."""
    executable = Path(sys.executable)
    chain = [
        executable.parent.parent,
        executable.resolve().parent.parent,
        sys.prefix,
        sys.base_prefix,
    ]
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    homes = dict.fromkeys(str(Path(path)) for path in [*chain, *packages])
    return [home for home in homes if Path(home) != Path(home).parent]


def wrap(argv, scratch, shared=None, shown=()):
    """The bubblewrap command that runs argv with scratch as the one directory it may write to.

    shared: another such directory, for a socket. shown: further files to read.
    """
    seen = [*SYSTEM, *python_homes(), str(ROOT / "kdlab"), str(ROOT / "data"), *map(str, shown)]
    binds = [word for path in seen for word in ("--ro-bind-try", path, path)]
    hidden = [
        str(ROOT / name)
        for name in HIDDEN
        if any(Path(path) in (ROOT / name).parents for path in seen)
    ]
    masks = [word for path in hidden if Path(path).is_dir() for word in ("--tmpfs", path)]
    # a kernel whose parent is a new pid namespace's first process takes it for an orphan's: 1
    # switches that off
    return [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        *binds,
        *masks,
        "--bind",
        str(scratch),
        str(scratch),
        *(["--bind", str(shared), str(shared)] if shared else []),
        "--chdir",
        str(scratch / "work"),
        "--setenv",
        "JPY_PARENT_PID",
        "1",
        *argv,
    ]


PROBE = """
import ipykernel, os, socket
try:
    socket.create_connection(("192.0.2.1", 9), timeout=2)
except OSError as error:
    raise SystemExit(error.errno != 101)
raise SystemExit(1)
"""  # 101: network unreachable; 192.0.2.1: an address nobody has, RFC 5737


def why_not():
    """What keeps bubblewrap from being used, in a few words; "" where it works, which is tried."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap needs Linux"
    if not shutil.which("bwrap"):
        return f"bubblewrap is not installed: {INSTALL}"
    with scratch_directory() as scratch:
        tried = subprocess.run(
            wrap([sys.executable, "-c", PROBE], scratch),
            env=environment(scratch),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or ["the network could be reached"])[-1]
        return f"bubblewrap does not work here ({said}); in a container it needs user namespaces"
    return ""


@contextmanager
def scratch_directory():
    """A fresh directory with `home` and `work` in it, removed afterwards with all that was written
    there."""
    # a short name: sockets live here, and their paths are limited
    path = Path(tempfile.mkdtemp(prefix="kd-"))
    for name in ("home", "work", "tmp"):
        (path / name).mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, onerror=_unlock)


def _unlock(remove, path, _):
    try:
        os.chmod(Path(path).parent, 0o700)
        os.chmod(path, 0o700)
        remove(path)
    except OSError:
        pass  # still written to by what a student left running


def environment(scratch):
    """What a kernel sees: nothing of the instructor's own variables, no GPU, no hub."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")
        if name in os.environ
    }
    return kept | {
        "HOME": str(scratch / "home"),
        "USERPROFILE": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "KDLAB_SCALE": "quick",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLCONFIGDIR": str(scratch / "home"),
    }


def limited(argv):
    """argv with limits on memory, on a file's size, and on processes and threads."""
    if os.name != "posix":
        return argv
    kilobytes = max(MEMORY, psutil.virtual_memory().total * 3 // 4) // 1024
    processes = _threads() + PROCESSES
    limits = [f"-v {kilobytes}", f"-f {FILE_LIMIT}", f"-u {processes}", f"-p {processes}"]
    # bash says -u, dash -p for the same; what a shell does not know it passes over
    script = "".join(f"(ulimit {one}) 2>/dev/null && ulimit {one}; " for one in limits)
    script += 'exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *argv]


def _threads():
    """How many threads this user has on this machine."""
    total = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids = process.info["uids"]
        if uids is not None and uids.real == os.getuid():
            total += process.info["num_threads"] or 0
    return total


def kernel_manager(scratch, inside, shared=None):
    """A manager for one kernel in scratch; inside: whether in bubblewrap."""
    argv = limited([sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    manager = AsyncKernelManager(connection_file=str(scratch / "kernel.json"))
    if os.name == "posix":  # sockets in the file system reach into a sandbox without a network
        manager.transport, manager.ip = "ipc", str(scratch / "k")
    argv = wrap(argv, scratch, shared) if inside else argv
    manager._kernel_spec = KernelSpec(argv=argv, display_name="sandbox", language="python")
    return manager


def tool_process(names, scratch, inside, shared=None):
    """A Python that runs the first of these tools, spoken to by lines on its standard input."""
    files = [TOOLS / name for name in names]
    argv = limited([sys.executable, "-P", str(files[0])])
    return subprocess.Popen(
        wrap(argv, scratch, shared, files) if inside else argv,
        cwd=scratch / "work",
        env=environment(scratch) | {"MPLBACKEND": "agg"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def kill(manager):
    """Stop a kernel and what it started, at once."""
    end(getattr(manager.provisioner, "process", None))


def end(process):
    """Stop a process that leads a session of its own, and what it started, at once."""
    if process is not None and os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass  # gone already
    elif isinstance(process, subprocess.Popen):
        process.kill()
