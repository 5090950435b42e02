"""The submit path: what is noted of a job when it is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.settings import Settings
from k2think.store.jobs import attached_jobs
from k2think.store.migrate import upgrade
from k2think.workers.session import open_session

if TYPE_CHECKING:
    from conftest import RedisServer

REQUEST = SolveRequest(problem="What is 1 + 1?")


@pytest.mark.parametrize("away", [False, True], ids=["redis_there", "redis_away"])
async def test_a_client_whom_redis_cannot_see_is_not_watched_through_it(
    redis_server: RedisServer, tmp_path: Path, away: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'k2think.db'}"
    upgrade(url)
    settings = Settings(_env_file=None, database_url=url, broker_url=redis_server.url)  # pyright: ignore[reportCallIssue]
    if away:
        redis_server.kill()
    async with open_session(settings) as session, session.submitter.present() as job_id:
        await session.submitter.submit(REQUEST, attached=True, job_id=job_id)

        assert await session.database.read(attached_jobs) == ([] if away else [job_id])
