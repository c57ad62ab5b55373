"""Run a command without a network and without this machine's own settings: python tools/offline.py
command ...

In a network namespace of its own where the system allows (Linux), else with Python's sockets
patched, which reaches kernels but not programs in other languages that they start. One line says
which. --patch asks for the second."""

import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMESPACE, PATCH = "kernel namespace, loopback only", "Python sockets patched, loopback only"
WAYS = [(NAMESPACE, ["unshare", "-rn"]), (NAMESPACE, ["unshare", "-n"]), (PATCH, [])]
OWN = [
    "KDLAB_DATA",
    "KDLAB_MODELS",
    "KDLAB_TASK",
    "KDLAB_LM",
    "KDLAB_STUDENT",
    "KDLAB_ENCODER",
    "KDLAB_TEXT",
    "KDLAB_CLAIMS",
    "KDLAB_LEDGER",
    "KDLAB_REPEAT",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "MPLBACKEND",
]


def environment(way):
    """What the committed outputs were made with: quick scale, CPU, no data but the embedded, no
    progress bars."""
    env = {key: value for key, value in os.environ.items() if key not in OWN}
    env |= {
        "KDLAB_SCALE": "quick",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "HF_HOME": str(HERE.parent / "build" / "no-hub"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if way == PATCH:
        env["PYTHONPATH"] = os.pathsep.join(
            [str(HERE / "blocked"), *filter(None, [env.get("PYTHONPATH")])]
        )
    return env


def raise_loopback():
    """Bring `lo` up, which is down in a new namespace; kernels talk over it. Does nothing where it
    may not."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            flags = struct.unpack(
                "16sh14x", fcntl.ioctl(s, 0x8913, struct.pack("16sh14x", b"lo", 0))
            )[1]
            # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
            fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
    except (ImportError, OSError):
        pass


def blocked():
    """True when an outside address is unreachable and the loopback works."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError:
        return False
    try:
        # RFC 5737: an address nobody has
        socket.create_connection(("192.0.2.1", 9), timeout=2).close()
    except OSError as error:
        return error.errno == errno.ENETUNREACH
    return False


def become(command, env):
    """Run the command in the place of this process, so that Ctrl-C and its exit status are its
    own."""
    if os.name == "posix":
        os.execvpe(command[0], command, env)
    return subprocess.call(command, env=env)


def main(command):
    if command[0] == "--inside":
        raise_loopback()
        return become(command[1:], os.environ) if blocked() else 1
    ways = WAYS[-1:] if command[0] == "--patch" else WAYS
    command = command[1:] if command[0] == "--patch" else command
    for way, prefix in ways:
        inside, env = [*prefix, sys.executable, __file__, "--inside"], environment(way)
        try:
            probe = subprocess.run(
                [*inside, sys.executable, "-c", ""], env=env, capture_output=True
            )
        except FileNotFoundError:  # no `unshare` here
            continue
        if probe.returncode == 0:
            print(f"network block: {way}", flush=True)
            return become([*inside, *command], env)
    print("network block: NONE, this system allows no way; running with the network", flush=True)
    return become(command, environment(None))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/offline.py [--patch] command ...")
    sys.exit(main(sys.argv[1:]))
