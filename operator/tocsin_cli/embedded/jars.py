"""Kafka's jars: resolved once from Maven Central through jgo, then taken from the local Maven repository.

Only jgo's resolver is used. Its environments were refused: to sort jars into class path and module path they fetch a
whole JDK 11 where no Java is installed, they count as complete once a single jar is there, and all we need is the
list of files. Downloads land in a scratch directory and are renamed into place, because a download that was cut
short would otherwise count as cached for ever; a lock lets a second process wait instead of downloading as well.
"""

from __future__ import annotations

import fcntl
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext, PythonResolver
from jgo.parse import Coordinate

from tocsin_cli.embedded.process import EmbeddedError

KAFKA_VERSION = "4.4.0"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
PARALLEL_DOWNLOADS = 6
MEGABYTE = 1_000_000


def resolve_class_path(on_progress: Callable[[str], None]) -> list[Path]:
    """Return the jars a Kafka broker runs on, downloading what is missing and telling `on_progress` about it.

    About one second when everything is cached. Raise EmbeddedError where the repository cannot be reached.
    """
    repository = Path(GlobalSettings.load().repo_cache)
    repository.mkdir(parents=True, exist_ok=True)
    resolver = _AtomicResolver(on_progress)
    context = MavenContext(resolver=resolver, repo_cache=repository, remote_repos={"central": MAVEN_CENTRAL_URL})
    try:
        with _one_at_a_time(repository / ".tocsin.lock", on_progress):
            return _resolve(context)
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise EmbeddedError(
            f"Kafka {KAFKA_VERSION} could not be fetched from {MAVEN_CENTRAL_URL}: {error}. "
            "Check the network (HTTPS_PROXY is honoured), or name a running Kafka with --brokers",
        ) from error


def _resolve(context: MavenContext) -> list[Path]:
    dependencies = [context.create_dependency(replace(Coordinate.parse(each), scope="compile")) for each in COORDINATES]
    inputs, transitive = context.resolver.resolve(dependencies)
    wanted = [*inputs, *(each for each in transitive if each.scope in {"compile", "runtime"})]
    artifacts = {each.artifact.key: each.artifact for each in wanted}
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(lambda artifact: artifact.resolve(), artifacts.values()))


class _AtomicResolver(PythonResolver):
    """jgo's resolver, with downloads that are either whole or not there."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        super().__init__()
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0

    def download(self, artifact: Any) -> Path:
        """Download into a scratch repository beside the real one, then rename."""
        target: Path = artifact.cached_path
        with tempfile.TemporaryDirectory(prefix=".tocsin-", dir=artifact.context.repo_cache) as scratch:
            context = MavenContext(resolver=self, repo_cache=Path(scratch), remote_repos=artifact.context.remote_repos)
            component = context.project(artifact.groupId, artifact.artifactId).at_version(artifact.version)
            fetched = super().download(component.artifact(artifact.classifier, artifact.packaging))
            if fetched is None:
                raise EmbeddedError(f"{artifact} is in none of {list(artifact.context.remote_repos.values())}")
            size = fetched.stat().st_size
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(target)
        self._report(size)
        return target

    def _report(self, size_bytes: int) -> None:
        with self._lock:
            self._files += 1
            self._bytes += size_bytes
            text = f"downloading Kafka {KAFKA_VERSION}: {self._files} files, {self._bytes / MEGABYTE:.1f} MB"
        self._on_progress(text)


@contextmanager
def _one_at_a_time(path: Path, on_progress: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(f"waiting for another process that downloads Kafka {KAFKA_VERSION}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
