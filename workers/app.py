"""The Celery application: settings only. Tasks are bound by `tasks.py`, in the worker process that runs them."""

from celery import Celery
from kombu.entity import Exchange, Queue

from ..schemas.settings import Settings
from .queues import INTAKE, PRIORITY_STEPS, broker_url, result_backend_url
from .redis_clients import celery_place

VISIBILITY_TIMEOUT_S = 300
"""When the broker returns what was fetched but never acknowledged. Recovery is the lease's; this only tidies up."""
BROKER_CONNECTIONS_MAX = 50


def create_app(settings: Settings, *, queues: list[str]) -> Celery:
    """Build the application that consumes these queues.

    Messages are JSON, acknowledged by us on claiming; no ETA, no chord, no events, no gossip (see docs/reliability.md).
    """
    broker, results = celery_place(broker_url(settings)), celery_place(result_backend_url(settings))
    app = Celery("k2think", broker=broker.url, backend=results.url, set_as_current=False)
    exchange = Exchange("k2think", type="direct")
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_expires=86_400,
        result_backend_always_retry=False,
        task_acks_late=False,
        task_ignore_result=True,
        task_queues=[Queue(name, exchange, routing_key=name) for name in queues],
        task_create_missing_queues=False,
        task_default_queue=queues[0],
        task_default_exchange=exchange.name,
        task_default_routing_key=queues[0],
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_consumer="k2think.workers.consumer:Consumer",
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # Redis answers, but refuses to write: a replica, or one without memory
        broker_pool_limit=4,
        broker_transport_options={
            # Keeping what is fetched and not yet acknowledged in Redis, too, costs half of a hop. Steps need it not: what a
            # dead worker had fetched is rung for again by the sweeper, long before the broker would return it.
            "ack_emulation": INTAKE in queues,
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "priority_steps": PRIORITY_STEPS,
            "queue_order_strategy": "round_robin",
            "max_connections": BROKER_CONNECTIONS_MAX,
            "socket_keepalive": True,
            # A connection may die without a word: a command on it fails after the one, a wait for messages is noticed by
            # kombu after the other.
            "socket_connect_timeout": 5,
            "socket_timeout": 5,
            "health_check_interval": 5,
            "unacked_restore_interval": 30,
            "unacked_restore_throttle": 1,
            **broker.options,
        },
        broker_use_ssl=broker.ssl or False,
        redis_backend_use_ssl=results.ssl,
        result_backend_transport_options=results.options,
        redis_socket_connect_timeout=5,
        redis_socket_timeout=10,
    )
    return app
