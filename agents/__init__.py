"""The four agents, their backends, and the pure state machine. Knows nothing of Celery, Redis or SQL."""
