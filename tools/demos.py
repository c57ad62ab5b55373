"""Serve the demos as apps with Voilà, on this machine only, behind a token: python tools/demos.py
[--port N]

Prints the address to open; a port that is taken moves on to another. Ctrl-C ends the server and its
kernels. Nothing comes from a CDN: the templates in tools/voila leave out what Voilà's own would
load from one."""

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path

import lean  # isort: skip  # noqa: F401  # before nbformat, which Voilà brings

ROOT = Path(__file__).resolve().parent.parent
EXTENSIONS = [
    "anywidget",
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
]
# for the kernels: no threads that spin, and no bar of a training in red on the projector
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
os.environ["JUPYTER_PATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parent / "voila"), os.environ.get("JUPYTER_PATH")])
)


def settings(directory, port, token):
    """What Voilà is asked for: loopback only, the token, our templates, and no override of them by
    an address."""
    return {
        "Voila": {
            "ip": "127.0.0.1",
            "port": port,
            "token": token,
            "root_dir": str(directory),
            "open_browser": True,
            "log_level": "WARN",
        },
        "VoilaConfiguration": {
            "template": "kdlab",
            "classic_tree": True,
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "show_tracebacks": False,
            # JupyterLab's other extensions are of no use here, and one says so in the console
            "extension_allowlist": EXTENSIONS,
        },
        "VoilaExporter": {"nb_ipywidgets_js": {}},
    }


def measure():
    """The students of demos 3 and 5, trained anew: two minutes."""
    from kdlab.show import hidden_layers, student_choice

    hidden_layers.keep()
    student_choice.distilled_sizes().to_csv(student_choice.MEASURED, index=False)


def parsed():
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--token", default=None, help="made anew where none is given")
    parser.add_argument("--directory", type=Path, default=ROOT / "notebooks" / "demos")
    parser.add_argument(
        "--measure", action="store_true", help="train anew what demos 3 and 5 show, and end"
    )
    return parser.parse_args()


def closing():
    """Voilà's handler for a page that is left, which ends its kernel, for pages of this server
    alone. Raises ImportError where Voilà is missing."""
    from tornado.web import HTTPError
    from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler

    class Closing(VoilaShutdownKernelHandler):
        """The browser's last message carries no form's token, so what is asked is where it comes
        from."""

        def check_xsrf_cookie(self):
            own = f"{self.request.protocol}://{self.request.host}"
            if self.request.headers.get("Origin") != own:
                raise HTTPError(403, "a kernel is ended by its own page")

    return Closing


def served(demos, token):
    """Voilà's application for these notebooks. Raises ImportError where Voilà is missing."""
    import voila.app

    voila.app.VoilaShutdownKernelHandler = closing()

    class Served(voila.app.Voila):
        """Voilà, which says where it is in place of opening a browser: its own log hides the
        token."""

        def launch_browser(self):
            here = f"http://127.0.0.1:{self.port}/"
            print(
                "Demos, for this machine only; Ctrl-C ends them.",
                f"\n  all:  {here}?token={token}",
                flush=True,
            )
            for path in demos:
                print(f"  {path.stem}:  {here}voila/render/{path.name}?token={token}", flush=True)

    return Served


def main():
    options = parsed()
    if options.measure:
        return measure()
    demos = sorted(options.directory.glob("*.ipynb"))
    if not demos:
        return f"demos: no notebook in {options.directory}"
    token = options.token or secrets.token_urlsafe(24)
    try:
        from traitlets.config import Config

        application = served(demos, token)
    except ImportError:
        return "demos: Voilà is missing; install it with: pip install -c constraints.txt voila"
    app = application(config=Config(settings(options.directory, options.port, token)))
    app.initialize([])
    # a shell's background job would ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app.start()
    print("Ended.")


if __name__ == "__main__":
    sys.exit(main())
