"""Runs in a pod, with Python's standard library alone: posts a burst to the Service and prints what was answered.

The last line of its output is JSON: the ids answered 202, and the other answers counted by status.
"""

import json
import sys
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

THREADS = 8
TIMEOUT_SECONDS = 60


def post(url: str, numbers: range, accepted: list[str], others: Counter[str]) -> None:
    """Post one notification per number over one connection."""
    target = urlsplit(url)
    connection = HTTPConnection(target.hostname or "", target.port, timeout=TIMEOUT_SECONDS)
    for number in numbers:
        body = json.dumps({"fromID": 1, "toID": 1 + number % 100, "message": f"number {number}"})
        try:
            connection.request("POST", target.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException) as error:
            others[type(error).__name__] += 1
            connection.close()
            continue
        if answer.status == 202:
            accepted.append(json.loads(text)["id"])
        else:
            others[str(answer.status)] += 1


def main(url: str, count: int) -> None:
    """Post `count` notifications from several threads."""
    accepted: list[str] = []
    others: Counter[str] = Counter()
    threads = [
        threading.Thread(target=post, args=(url, range(first, count, THREADS), accepted, others))
        for first in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"accepted": accepted, "others": others}) + "\n")


main(sys.argv[1], int(sys.argv[2]))
