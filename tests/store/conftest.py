"""The two databases that every test of the store runs on, and short words for what the tests do with them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.messages import Envelope, ScreenInput
from k2think.schemas.outcomes import StepFailure, StepResult
from k2think.schemas.progress import Decision, Ending, NewStep
from k2think.store.database import Database
from k2think.store.jobs import Applied, accept_job, apply_decision, load_job, lock_job
from k2think.store.migrate import upgrade
from k2think.store.steps import Claim, claim_step, fail_step, finish_step
from sqlalchemy import text

if TYPE_CHECKING:
    from k2think.schemas.trace import CallTrace
    from sqlalchemy import Connection

NOW = 1_795_000_000.0
LEASE_S = 15.0


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: Any) -> str:
    """One PostgreSQL database with our tables; tests that use it find it empty."""
    url: str = postgres_server.new_database()
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with our tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without any tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("postgres_server").new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database with our tables, empty."""
    if request.param == "sqlite":
        copy = shutil.copy(request.getfixturevalue("migrated_sqlite_file"), tmp_path / "store.db")
        return f"sqlite:///{copy}"
    return request.getfixturevalue("migrated_postgres_url")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An open database, empty."""
    opened = Database(url)
    if url.startswith("postgresql"):
        opened.run_sync(lambda conn: conn.execute(text("TRUNCATE jobs CASCADE")))
    yield opened
    opened.close()


class Story:
    """Tells jobs to a database, on a clock that only moves when told."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOW
        self._numbers = itertools.count()

    def accept(self, problem: str = "What is 1 + 1?", *, tenant: str = "default", **options: Any) -> Envelope:
        """Accept a job; return its first message."""
        fields = {name: options.pop(name) for name in ("policy", "idempotency_key", "metadata") if name in options}
        request = SolveRequest(problem=problem, **fields)
        first = NewStep("screen_input", ScreenInput(messages=request.conversation))
        accepted = self.database.run_sync(
            lambda conn: accept_job(conn, request=request, first=first, tenant=tenant, now=self.now, **options)
        )
        assert accepted.message is not None
        return accepted.message

    def claim(self, envelope: Envelope, *, worker: str = "worker-1") -> Claim | None:
        """Claim the step of the message."""
        return self.database.run_sync(
            lambda conn: claim_step(conn, envelope, worker=worker, now=self.now, lease_s=LEASE_S)
        )

    def claimed(self, envelope: Envelope, *, worker: str = "worker-1") -> Claim:
        """Claim the step of the message, which must succeed."""
        claim = self.claim(envelope, worker=worker)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, result: StepResult, call: CallTrace | None = None) -> bool:
        """Report the result of the claimed step."""
        return self._locked(claim, lambda conn: finish_step(conn, claim, result=result, call=call, now=self.now))

    def fail(
        self,
        claim: Claim,
        failure: StepFailure,
        *,
        retry_at: float | None = None,
        call: CallTrace | None = None,
        counts: bool = True,
    ) -> bool:
        """Report that the claimed step failed."""
        return self._locked(
            claim,
            lambda conn: fail_step(
                conn, claim, failure=failure, call=call, retry_at=retry_at, now=self.now, counts=counts
            ),
        )

    def _locked(self, claim: Claim, change: Callable[[Connection], bool]) -> bool:
        def operation(conn: Connection) -> bool:
            lock_job(conn, claim.envelope.job_id)
            return change(conn)

        return self.database.run_sync(operation)

    def decide(self, job_id: str, decision: Decision) -> Applied:
        """Apply a decision."""
        return self.database.run_sync(
            lambda conn: apply_decision(conn, load_job(conn, job_id, lock=True), decision, now=self.now)
        )

    def create(self, job_id: str, *steps: NewStep) -> tuple[Envelope, ...]:
        """Create steps; return their messages."""
        return self.decide(job_id, Decision(create=steps)).messages

    def end(self, job_id: str, ending: Ending) -> Applied:
        """End the job."""
        return self.decide(job_id, Decision(ending=ending))


@pytest.fixture
def story(database: Database) -> Story:
    """Tells jobs to the database."""
    return Story(database)
