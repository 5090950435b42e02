"""Answers to the callers of the Celery door, through the result backend that they read with `.get()`."""

from typing import Any

from celery import Celery, states
from celery.backends.base import Backend

from ..schemas.errors import BrokerUnavailable
from ..schemas.jobs import SolveResult
from .redis_clients import celery_place


class Replies:
    """Stores results under the caller's task id."""

    def __init__(self, result_backend_url: str) -> None:
        place = celery_place(result_backend_url)
        app = Celery("k2think-replies", backend=place.url, set_as_current=False)
        app.conf.update(
            redis_backend_use_ssl=place.ssl,
            result_backend_transport_options=place.options,
            result_serializer="json",
            result_expires=86_400,
            result_backend_always_retry=False,
            redis_socket_connect_timeout=5,
            redis_socket_timeout=5,
            redis_retry_on_timeout=False,
        )
        self._app = app

    def store(self, task_id: str, result: SolveResult) -> None:
        """Make `AsyncResult(task_id).get()` return the result as a dict. Blocking; raises BrokerUnavailable."""
        backend: Backend = self._app.backend
        payload: dict[str, Any] = result.model_dump(mode="json")
        try:
            backend.store_result(task_id, payload, states.SUCCESS)
        except Exception as exc:  # the border: Celery, kombu and redis each have errors of their own
            raise BrokerUnavailable(f"the result backend does not answer: {exc}") from exc
