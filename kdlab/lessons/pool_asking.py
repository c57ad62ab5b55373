"""What a laptop asks of a pool over HTTP, and what it makes of the answer, whoever gives it."""

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from typing import Any

from kdlab.base import plain_arguments as arguments
from kdlab.lessons.pool_book import MEASURES

PATIENCE = 10.0  # seconds for an answer
TRIES = 4  # where the pool says that too many ask at once
MOST = 10_000  # bytes of an answer; a pool's take 300


class AwayError(ConnectionError):
    """Nobody answers, or somebody who is no pool, or one that can't just now."""


class RefusedError(ValueError):
    """The pool's own words of refusal, with the status of HTTP."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


def asked(url, code, body):
    """The answer of a pool; AwayError where nobody answers who is one, RefusedError for a no."""
    headers = {"Authorization": f"Bearer {code}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is in this network
    for wait in [*(0.5 * 2**i for i in range(TRIES)), None]:
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return parsed(answer.read(MOST))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 429 and wait:
                    time.sleep(wait * (1 + secrets.randbelow(1000) / 1000))  # not all at once
                    continue
                if error.code in (408, 429) or error.code >= 500:
                    raise AwayError(f"it answers {error.code}") from None
                said = words(parsed(error.read(MOST)), "error")
                raise RefusedError(error.code, said) from None
        except (OSError, http.client.HTTPException, UnicodeError, OverflowError) as error:
            raise AwayError(str(getattr(error, "reason", error)) or type(error).__name__) from None


def parsed(body: bytes) -> dict[str, Any]:
    """An answer as JSON; AwayError for what no pool says.

    >>> parsed(b'{"split": 3}')
    {'split': 3}
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AwayError("who answers is no pool")
    return answer


def words(answer: dict[str, Any], key: str) -> str:
    """A text of an answer, short and printable whoever wrote it.

    >>> words({"reason": "twice\\n"}, "reason")
    'twice '
    """
    said = str(answer.get(key, ""))[:200]
    return "".join(c if c.isprintable() else " " for c in said)


def terms(answer: dict[str, Any]) -> dict[str, Any]:
    """What a pool tells who joins, checked; AwayError for what no pool says."""
    try:
        arguments.whole("pool", "split", answer["split"], least=1, most=10**6)
        numbers = {k: float(arguments.number("pool", k, answer[k])) for k in ("low", "high")}
        arguments.one_of("pool", "measure", answer["measure"], MEASURES)
    except (KeyError, ValueError):
        raise AwayError("who answers is no pool") from None
    question = words(answer, "question")
    return {"split": answer["split"], "question": question, "measure": answer["measure"]} | numbers
