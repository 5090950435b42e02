"""Names of queues, tasks and channels, and the broker's URL in the forms that its clients want."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..schemas.errors import ConfigurationError
from ..schemas.messages import AgentKind
from ..schemas.policy import Priority

if TYPE_CHECKING:
    from ..schemas.settings import Settings

INTAKE = "intake"
"""Queue of the Celery door."""
SOLVE_TASK = "k2think.solve"
TASK_OF_AGENT: dict[AgentKind, str] = {
    AgentKind.planner: "k2think.plan",
    AgentKind.generator: "k2think.generate",
    AgentKind.verifier: "k2think.verify",
    AgentKind.safety: "k2think.screen",
}
PRIORITY_STEPS = [int(priority) for priority in Priority]
PRIORITY_SEPARATOR = "\x06\x16"
"""How kombu's Redis transport builds the list key of a priority other than 0."""

CANCEL_CHANNEL = "k2think.cancel"
"""Pub/sub channel of what is no longer wanted: a JSON object {"job": id, "steps": [name, …] or null for all}."""
JOB_CHANNEL_PREFIX = "k2think.job."
"""Pub/sub channel per job: a doorbell that says that its events grew. Its subscribers are the clients that wait."""

REQUESTS_PREFIX = "k2think:requests:"
"""Of the keys in which a gateway counts the requests of tenants."""

RUNG_NOTICE, ENDED_NOTICE = "1", "end"
"""What is published on a job's channel: something happened; the job has ended."""


def job_channel(job_id: str) -> str:
    """Return the doorbell channel of a job."""
    return JOB_CHANNEL_PREFIX + job_id


def role_queues(role: str, *, names: Sequence[str] = ()) -> list[str]:
    """Return the queues that a worker of this role pulls from.

    `names`: what a request may call the backend that its generators are bound to, that is, its name and its classes.
    """
    if role == "all":
        return [INTAKE, *(queue for agent in AgentKind for queue in role_queues(agent.value, names=names))]
    if role == AgentKind.generator.value:
        return [role, *(f"{role}.{name}" for name in names)]
    return [role]


def list_keys(queue: str) -> list[str]:
    """Return the Redis list keys that hold a queue's messages, one for each priority."""
    return [f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue for step in PRIORITY_STEPS]


def task_of_queue(queue: str) -> str:
    """Return the name of the task that serves a queue of steps."""
    return TASK_OF_AGENT[AgentKind(queue.split(".", 1)[0])]


def result_backend_url(settings: "Settings") -> str:
    """Return the Celery result backend that answers callers of the Celery door."""
    if settings.result_backend_url is not None:
        return settings.result_backend_url.get_secret_value()
    return broker_url(settings)


def broker_url(settings: "Settings") -> str:
    """Return the broker's URL; raise ConfigurationError where none is set and no embedded one was started."""
    if settings.broker_url is None:
        raise ConfigurationError(
            "no Redis is configured: set K2THINK_BROKER_URL, or run `k2think up` or `k2think solve`, "
            "which start an embedded one"
        )
    return settings.broker_url.get_secret_value()
