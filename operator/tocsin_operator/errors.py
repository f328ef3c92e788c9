"""The operator's errors, one tree under the core's.

TocsinError
├── PipelineError            (model.py) an object that is no pipeline of this version
├── SettingsError            (core) a wrong TOCSIN_* variable
├── KafkaFailure             (core) what a broker refused
└── KubernetesFailure        anything the API server, or the way to it, refused
    ├── APIUnavailable       nobody answers, too late, or "try again"      (retriable)
    ├── WriteConflict        the object changed since it was read          (retriable)
    ├── ObjectMissing        no such object
    ├── AccessForbidden      RBAC, quota or an admission policy says no
    └── ObjectRefused        the object is not valid; the text names the field
"""

from __future__ import annotations

from tocsin_core.errors import TocsinError


class KubernetesFailure(TocsinError):
    """The API server refused. `status` is its HTTP status, 0 where there was none."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class APIUnavailable(KubernetesFailure):
    """The API server does not answer, not in time, or asks to come back later."""

    retriable = True


class WriteConflict(KubernetesFailure):
    """The object changed since it was read: read again and decide again."""

    retriable = True


class ObjectMissing(KubernetesFailure):
    """There is no such object."""


class AccessForbidden(KubernetesFailure):
    """RBAC, a quota or an admission policy says no."""


class ObjectRefused(KubernetesFailure):
    """The object is not valid in this cluster."""


def translate_status(status: int, message: str) -> KubernetesFailure:
    """Return the error for an HTTP status of the API server."""
    kinds: dict[int, type[KubernetesFailure]] = {
        400: ObjectRefused,
        401: AccessForbidden,
        403: AccessForbidden,
        404: ObjectMissing,
        409: WriteConflict,
        422: ObjectRefused,
        429: APIUnavailable,
    }
    fallback = APIUnavailable if status >= 500 or status == 0 else KubernetesFailure  # noqa: PLR2004 - HTTP's own
    return kinds.get(status, fallback)(message, status=status)
