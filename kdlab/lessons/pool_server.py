"""The pool behind HTTP: what a laptop may send, who may read it, and how much of both.

Started by `kdlab pool` or `make pool`. Numbers in a fixed form come in and numbers go out; nothing
that arrives is ever run. A request brings the class's code, which joins, sends and reads, or the
instructor's token, which reads and closes; the page itself brings neither and holds no data.
"""

import asyncio
import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from kdlab.base import plain_arguments as arguments
from kdlab.base.extras import needs
from kdlab.base.writing import beside
from kdlab.lessons.pool_book import LAPTOPS, Book, FullError, Sent, Terms
from kdlab.lessons.pool_limits import Rates
from kdlab.lessons.pool_picture import keep, picture, table
from kdlab.lessons.pool_reading import Reading
from kdlab.lessons.pool_simulate import crowd

with needs("serve", asked="pool", why="a server needs"):
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import HTMLResponse, JSONResponse, Response
    from pydantic import BaseModel, Field, ValidationError
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # that nobody mistakes, and that make no words
LARGEST = 1000  # bytes of a request's body; what the form allows takes 200
SLOWEST = 10.0  # seconds that a body may take to arrive
BURST, EACH_SECOND = 120, 20  # of one address: a class may sit behind a single one
GUESS = 12  # what a wrong code costs of them, so that nobody tries them all
QUESTION = "Does the teacher help?"
PAGE = Path(__file__).parent / "pool_page.html"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


# what is not named here is refused
class _Join(BaseModel, strict=True, extra="forbid"):  # type: ignore[call-arg]
    laptop: str = Field(pattern=r"^[0-9a-f]{32}$")


class _Send(_Join):
    split: int = Field(ge=0, lt=10**6)
    difference: float
    measure: Literal["points", "nats"]
    prediction: Literal["helps", "no difference", "hurts"]


async def _read(request, form):
    """The body of a request in this form; HTTPException for another form, 413 for a larger one."""
    body = b""
    try:
        async with asyncio.timeout(SLOWEST):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST:
                    raise HTTPException(413, f"a request must be at most {LARGEST} bytes")
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was cut off") from error
    except TimeoutError as error:
        raise HTTPException(408, f"a request must be sent in {SLOWEST:g} seconds") from error
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"])) or "the request"
        raise HTTPException(400, f"{where}: {found['msg']}, got {found['input']!r:.60}") from error


def _guard(api, keys):
    """Refuse who brings no key, and who asks too often; errors are a sentence."""
    rates = Rates(BURST, EACH_SECOND)

    def answer(status, sentence, **headers):
        return JSONResponse({"error": sentence}, status, headers=HEADERS | headers)

    @api.exception_handler(HTTPException)
    async def refuse(request, error):
        return answer(error.status_code, str(error.detail))

    @api.exception_handler(FullError)
    async def full(request, error):
        return answer(403, str(error))

    @api.exception_handler(OSError)
    async def lost(request, error):  # a full disk: the laptop keeps it and comes again
        return answer(503, "the pool could not keep it; send it again later")

    @api.middleware("http")
    async def authorise(request, call_next):
        who = request.client.host if request.client else ""
        if not rates.allow(who):
            return answer(429, "too many requests from this address", **{"Retry-After": "1"})
        given = request.headers.get("authorization", "").encode()
        # both are compared whatever the first says
        right = [secrets.compare_digest(given, f"Bearer {key}".encode()) for key in keys]
        request.state.learner, request.state.instructor = right
        if not any(right) and request.url.path != "/":
            rates.charge(who, GUESS)
            return answer(401, "wrong or no code")
        return await call_next(request)


def app(book: Book, folder: Path, code: str, token: str, address: str = "") -> Any:
    """The FastAPI application of a pool; what is kept at its close goes into the folder.

    POST /join, /send (the class's code), /close (the instructor's token); GET /state, /pooled.csv
    and /pooled.svg (either), / (the page, without any).
    """
    api, reading = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Reading(book)
    _guard(api, (code, token))
    _for_laptops(api, book)
    drawn = _drawn_once(book)

    @api.get("/")
    def page():
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=HEADERS)

    @api.get("/state")
    def state(request: Request):
        own = {"instructor": request.state.instructor, "address": address, "code": code}
        return JSONResponse(reading.now() | own, headers=HEADERS)

    @api.get("/pooled.csv")
    def pooled_table():
        return Response(table(book), media_type="text/csv", headers=HEADERS)

    @api.get("/pooled.svg")
    def pooled_picture():
        try:
            return Response(drawn(), media_type="image/svg+xml", headers=HEADERS)
        except ImportError as error:
            raise HTTPException(501, str(error)) from error

    @api.post("/close")
    def close(request: Request):
        if not request.state.instructor:
            raise HTTPException(403, "only the instructor's token closes a pool")
        book.close()
        return {"kept": [str(path) for path in keep(book, folder)]}

    return api


def _drawn_once(book):
    """A function that gives the picture, drawn again only after an entry: it takes a second."""
    lock, known = threading.Lock(), {}

    def drawn():
        with lock:
            count = len(book.seen()[0])
            if count not in known:
                known.clear()
                known[count] = picture(book).svg
            return known[count]

    return drawn


def _for_laptops(api, book):
    """What a laptop asks: its split, and what becomes of its result."""

    @api.post("/join")
    async def join(request: Request):
        asked = await _read(request, _Join)
        split = await run_in_threadpool(book.join, asked.laptop)
        terms = book.terms
        return {
            "split": split,
            "question": terms.question,
            "low": terms.low,
            "high": terms.high,
            "measure": terms.measure,
        }

    @api.post("/send")
    async def send(request: Request):
        asked = await _read(request, _Send)
        entry = await run_in_threadpool(book.enter, Sent(**asked.model_dump()))
        return {"status": entry.status, "reason": entry.reason}


@dataclass(frozen=True)
class Opened:
    """Where an open pool is asked: address, code (the class's), token (the instructor's, not shown
    when printed); its book and its folder."""

    address: str
    code: str
    token: str = field(repr=False)
    book: Book = field(repr=False)
    folder: Path

    @property
    def projector(self) -> str:
        """The page's address with the token in its fragment, which no server is sent."""
        return f"{self.address}/#{self.token}"


@contextmanager
def opened(
    folder: Path, terms: Terms | None = None, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[Opened]:
    """A pool while a `with` block lasts; in a folder that holds one it goes on, with the same keys.

    host: 127.0.0.1, this machine only, unless another is asked for. port: None for the one of
    before, or a free one. Raises OSError where the port is taken or another pool uses the folder,
    ValueError for other terms than those of before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with opened(Path(folder), Terms("Does the teacher help?")) as pool:
    ...         print(pool)
    Opened(address='http://127.0.0.1:...', code='...', folder=...)
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "pool.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OSError(f"another pool is open in {folder}") from error
    try:
        book, keys = Book(folder, terms), _keys(folder)
        with socket.create_server((host, keys["port"] if port is None else port)) as listener:
            port = listener.getsockname()[1]
            _write_keys(folder, keys | {"port": port})
            pool = Opened(f"http://{shown(host)}:{port}", keys["code"], keys["token"], book, folder)
            with _running(listener, app(book, folder, pool.code, pool.token, pool.address)):
                yield pool
        if book.entries:
            keep(book, folder)
    finally:
        lock.release()


@contextmanager
def _running(listener, api):
    """The application answers at this socket meanwhile."""
    settings = uvicorn.Config(
        api,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who is connected, whatever a request says
        limit_concurrency=400,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


def _keys(folder):
    """The code, the token and the port of before, so that laptops find a pool that was started
    again; new ones in a new folder."""
    with suppress(FileNotFoundError):
        return json.loads((folder / "keys.json").read_text(encoding="utf-8"))
    code = "".join(secrets.choice(LETTERS) for _ in range(6))
    return {"code": code, "token": secrets.token_urlsafe(24), "port": 0}


def _write_keys(folder, keys):
    with beside(folder / "keys.json") as new:
        new.touch(0o600)  # its owner's alone, before anything is in it
        new.write_text(json.dumps(keys), encoding="utf-8")


def shown(host: str) -> str:
    """The host to print: for 0.0.0.0, every network, this machine's own address in its network.

    >>> shown("127.0.0.1")
    '127.0.0.1'
    """
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
                asked.connect(("192.0.2.1", 9))  # no packet goes out: it only finds the way
                return asked.getsockname()[0]
            return socket.gethostname()
    return host


def local(host: str) -> bool:
    """Whether only this machine reaches it.

    >>> local("127.0.0.1"), local("0.0.0.0")
    (True, False)
    """
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def run(chosen: Any) -> int:
    """`kdlab pool` with its parsed arguments: open, say where, wait for Ctrl-C."""
    folder = Path(chosen.dir or time.strftime("pools/%Y-%m-%d-%H%M%S"))
    arguments.whole("pool", "simulate", chosen.simulate, most=LAPTOPS)
    if chosen.port is not None:
        arguments.whole("pool", "port", chosen.port, most=65535)
    asked = {key: getattr(chosen, key) for key in ("question", "low", "high", "measure")}
    asked = {key: value for key, value in asked.items() if value is not None}
    terms = None  # go on with those of before
    if asked or not (folder / "pool.jsonl").is_file():
        terms = Terms(**({"question": QUESTION, "simulated": chosen.simulate > 0} | asked))
    with needs("course", asked="pool", why="an interval needs"):
        import scipy.special  # noqa: F401  # now, and not at the fourth result
    over = threading.Event()
    with opened(folder, terms, chosen.host, chosen.port) as pool:
        if chosen.simulate and not pool.book.terms.simulated:
            raise ValueError(f"pool: {folder} must hold a simulated pool, got one of a class")
        print(_told(pool, chosen.host), flush=True)
        demo = threading.Thread(target=crowd, args=(pool.address, pool.code, chosen.simulate, over))
        demo.start()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"stopped; to go on: kdlab pool --dir {folder}", flush=True)
        finally:
            over.set()
            demo.join()
    return 0


def _told(pool, host):
    """What the instructor reads, on their own screen."""
    reach = (
        "this machine only; --host 0.0.0.0 opens it to the network you are in"
        if local(host)
        else "everyone in this network, unencrypted: who has the code can send"
    )
    notes = "".join(f"\nnote       {words}" for words in pool.book.notes)
    return (
        f'class      kd.pool("{pool.address}", "{pool.code}")\n'
        f"projector  {pool.projector}\n"
        f"kept in    {pool.folder}\n"
        f"reached by {reach}{notes}\n"
        "Ctrl-C stops it; nothing is lost"
    )
