"""`doctor` asks the Redis that answers Celery's callers, however its URL is written."""

from __future__ import annotations

import pytest
from k2think.cli.checkup_run import check_redis
from k2think.schemas.settings import Settings
from pydantic import SecretStr


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("redis://127.0.0.1:9/0", True),
        ("rediss://127.0.0.1:9/0", True),
        ("socket:///no/such.sock", True),
        ("redis+socket:///no/such.sock", True),
        ("redis+sentinel://127.0.0.1:9/main", True),
        ("rediss+sentinel://127.0.0.1:9/main", True),
        ("rpc://", False),
    ],
)
def test_every_form_of_the_result_backend_is_asked(url: str, *, asked: bool) -> None:
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        broker_url=SecretStr("redis://127.0.0.1:9/0"),
        result_backend_url=SecretStr(url),
    )
    assert [check.name for check in check_redis(settings)] == ["redis", *(["result backend"] if asked else [])]
