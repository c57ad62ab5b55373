"""Build and check what is published: python tools/release.py [--no-install] [--out dist]

The wheel and the sdist are built by hatchling in a scratch folder, checked, and put into dist/ when
they are right. Checked are their metadata (by twine where it is installed, else by packaging), that
both hold every file of the package and every file that `kdlab start` copies, and nothing but
committed files of these; that the wheel can be built again from the sdist; and, which needs the
network and minutes, that `kdlab start` works where nothing but the wheel is installed."""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from packaging import metadata

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kdlab.lessons.start import KEPT, PARTS

ROOT = Path(__file__).resolve().parent.parent
COURSE = ("notebooks/", "data/", "benchmarks/results/")  # in the wheel under kdlab/course
ABOUT = ("PKG-INFO", "METADATA", "RECORD", "WHEEL", "entry_points.txt")  # written by the build
BESIDE = {  # in the sdist, beside what the wheel is made of
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "LICENSE-prose",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
}


def run(*command, **options):
    """What a command printed; stops with that where it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed: {' '.join(str(word) for word in command)}")
    return done.stdout


def build(folder, source=ROOT, targets=("sdist", "wheel")):
    """The files that hatchling builds of `source` in the empty `folder`, sorted by name."""
    chosen = [word for target in targets for word in ("-t", target)]
    run(sys.executable, "-m", "hatchling", "build", *chosen, "-d", folder, cwd=source)
    return sorted(path for path in Path(folder).iterdir() if path.is_file())


def committed(*options):
    """The files that git has, as names in the repository; options: more for git ls-files."""
    return set(run("git", "ls-files", "-z", *options, cwd=ROOT).split("\0")) - {""}


def source():
    """The commit that is built, as a line."""
    told = run("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip()
    changed = run("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT).splitlines()
    return f"commit    {told}" + f", and {len(changed)} changed files" * bool(changed)


def wanted(files):
    """Of the repository's files those that are published: the package and the course.

    >>> sorted(wanted(["kdlab/a.py", "notebooks/homework/instructor/hw1/hw1.ipynb", "docs/x.md"]))
    ['kdlab/a.py']
    """
    hidden = "notebooks/homework/instructor/"
    return {name for name in files if name.startswith(("kdlab/", *COURSE)) and hidden not in name}


def copied(files):
    """Of the repository's files those that `kdlab start` copies.

    >>> copied({"notebooks/00_start_here.ipynb", "notebooks/none.ipynb", "README.md"})
    ['notebooks/00_start_here.ipynb']
    """
    found = {p.relative_to(ROOT).as_posix() for part in PARTS for p in ROOT.glob(part)}
    return sorted(found & set(files))


def in_wheel(name):
    """Where a file of the repository lies in the wheel.

    >>> in_wheel("data/teachers/x"), in_wheel("kdlab/a.py")
    ('kdlab/course/data/teachers/x', 'kdlab/a.py')
    """
    return f"kdlab/course/{name}" if name.startswith(COURSE) else name


def unpacked(archive, folder):
    """Unpack a wheel or an sdist: ({name: bytes} as it is installed or unpacked, metadata)."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        top, about = folder, next(folder.glob("*.dist-info")) / "METADATA"
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        (top,) = folder.iterdir()
        about = top / "PKG-INFO"
    files = {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    return files, about.read_bytes()


def differences(found, expected):
    """What is missing, what is there and shouldn't be, and what has other bytes: lines.

    found, expected: {name: bytes}.

    >>> differences({"a": b"1", "b": b""}, {"a": b"2", "c": b""})
    ['missing: c', 'not published: b', 'other bytes: a']
    """
    return [
        *(f"missing: {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"not published: {name}" for name in sorted(found.keys() - expected.keys())),
        *(
            f"other bytes: {name}"
            for name in sorted(found.keys() & expected.keys())
            if found[name] != expected[name]
        ),
    ]


def checked(archive, folder, files):
    """What is wrong with an archive, as lines; `files`: the repository's own, by name."""
    inside, about = unpacked(archive, folder)
    told = metadata.Metadata.from_email(about, validate=True)  # raises where a field is wrong
    wheel = archive.suffix == ".whl"
    names = wanted(files) if wheel else wanted(files) | BESIDE
    expected = {in_wheel(n) if wheel else n: (ROOT / n).read_bytes() for n in names}
    own = {n for n in inside if n in ABOUT or ".dist-info/" in n}
    wrong = differences({n: inside[n] for n in inside.keys() - own}, expected)
    lacking = [n for n in copied(files) if (in_wheel(n) if wheel else n) not in inside]
    wrong += [f"kdlab start copies it, and it isn't there: {name}" for name in lacking]
    licences = [f"no licence: {name}" for name in told.license_files if name not in files]
    return [f"{archive.name}: {line}" for line in wrong + licences]


def twine(archives):
    """One line on the metadata as the package index reads them."""
    if importlib.util.find_spec("twine") is None:
        return "metadata  read by packaging; twine is not installed: pip install twine"
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    return "metadata  passed twine"


def again(sdist, wheel, folder):
    """Whether the unpacked sdist gives the same wheel; a line where it doesn't."""
    unpacked(sdist, folder / "sdist")
    (top,) = (folder / "sdist").iterdir()
    (second,) = build(folder / "wheel", top, ["wheel"])
    if second.read_bytes() == wheel.read_bytes():
        return []
    two = [unpacked(p, folder / f"{i}")[0] for i, p in enumerate((second, wheel))]
    lines = differences(*two) or ["other bytes of the archive"]
    return [f"{wheel.name}, built again from {sdist.name}: {line}" for line in lines]


def tried(wheel, folder, files):
    """What is wrong with the course that `kdlab start` copies in a clean environment, as lines."""
    venv.create(folder / "env", with_pip=True)
    here = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    limits = ROOT / "constraints.txt"
    run(here / "python", "-m", "pip", "install", "-q", "-c", limits, wheel, cwd=folder)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run(here / "kdlab", "start", "course", "--no-open", cwd=folder, env=env)
    there = [path for path in (folder / "course").rglob("*") if path.is_file()]
    found = {p.relative_to(folder / "course").as_posix(): p.read_bytes() for p in there}
    found.pop(KEPT, None)
    expected = {name: (ROOT / name).read_bytes() for name in copied(files)}
    return [f"kdlab start: {line}" for line in differences(found, expected)]


def described(archive):
    """An archive's name, size, number of files and digest, as a line."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            count = len(file.namelist())
    else:
        with tarfile.open(archive) as file:
            count = len(file.getmembers())
    data = archive.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{archive.name}  {len(data) / 1e6:.1f} MB  {count} files  sha256 {digest}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where they go (dist)")
    parser.add_argument("--no-install", action="store_true", help="without the clean environment")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        scratch, files = Path(scratch), committed()
        wheel, sdist = build(scratch / "dist")
        print(source(), flush=True)
        wrong = checked(wheel, scratch / "wheel", files) + checked(sdist, scratch / "sdist", files)
        print(twine([wheel, sdist]), flush=True)
        wrong += again(sdist, wheel, scratch / "again")
        if asked.no_install:
            print("install   skipped: --no-install")
        elif not wrong:
            print("install   in a clean environment, some minutes ...", flush=True)
            (scratch / "tried").mkdir()
            wrong += tried(wheel, scratch / "tried", files)
        if wrong:
            return "\n".join([*wrong, "nothing is released"])
        asked.out.mkdir(parents=True, exist_ok=True)
        for path in (wheel, sdist):
            (asked.out / path.name).write_bytes(path.read_bytes())
            print(described(path))
    print(f"in {asked.out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; nothing is released.")
