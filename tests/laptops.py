"""What the tests of a pool share: its terms, names of laptops, requests, and what laptops send."""

import json
import urllib.error
import urllib.request

from kdlab.lessons.pool_book import Sent, Terms

TERMS = Terms("Does the teacher help?", -20, 20)


NAMES = [f"{i:032x}" for i in range(400)]


def ask(address, path, key="", body=None, raw=None, method=None):
    """(status, answer, headers) of one request."""
    data = raw if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{path}", data, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def state(running, key=None):
    return json.loads(ask(running.address, "state", key or running.token)[1])


def sent(laptop, split, difference=1.0, measure="points", prediction="helps"):
    return Sent(laptop, split, difference, measure, prediction)


def filled(book, values):
    """A laptop for each value, which joins and sends it."""
    return [
        book.enter(sent(name, book.join(name), value))
        for name, value in zip(NAMES, values, strict=False)
    ]
