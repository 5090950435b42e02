"""Celery workers, queues, leases, dispatcher, sweeper, and the embedded stack."""
