"""Notices are claimed once their subject has ended, by one sender at a time, until they are sent or given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.settings import GatewaySettings, Settings
from k2think.store.deliveries import (
    Claimed,
    add_delivery,
    any_due,
    claim_due,
    mark_delivered,
    mark_failed,
    notify_when_done,
    webhook_target,
)
from k2think.store.jobs import request_cancel
from k2think.store.tenants import Tenant, load_tenant, save_tenant
from sqlalchemy import text

from .conftest import Story

if TYPE_CHECKING:
    from k2think.store.database import Database

LEASE_S = 20.0


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    database.run_sync(lambda conn: conn.execute(text("DELETE FROM deliveries")))
    database.run_sync(lambda conn: conn.execute(text("DELETE FROM tenants")))


def ask(story: Story, job_id: str) -> None:
    story.database.run_sync(
        lambda conn: add_delivery(conn, tenant="default", subject="job", subject_id=job_id, now=story.now)
    )


def claim(story: Story) -> list[Claimed]:
    return story.database.run_sync(lambda conn: claim_due(conn, now=story.now, lease_s=LEASE_S, limit=10))


def due(story: Story) -> bool:
    return story.database.read_sync(lambda conn: any_due(conn, now=story.now))


def cancel(story: Story, job_id: str) -> None:
    error = JobError(code="cancelled", message="cancelled by the caller")
    story.database.run_sync(
        lambda conn: request_cancel(conn, job_id, now=story.now, status=JobStatus.cancelled, error=error)
    )


def test_a_notice_waits_for_the_end_of_its_job_and_is_claimed_by_one(story: Story) -> None:
    job_id = story.accept().job_id
    ask(story, job_id)
    ask(story, job_id)
    assert not due(story)
    assert claim(story) == []

    cancel(story, job_id)
    assert due(story)
    (mine,) = claim(story)

    assert (mine.subject_id, mine.status, mine.attempt, mine.ended_at) == (job_id, "cancelled", 1, story.now)
    assert claim(story) == []
    story.now += LEASE_S
    (again,) = claim(story)
    assert (again.id, again.attempt) == (mine.id, 2)


def test_what_an_older_try_says_is_refused(story: Story) -> None:
    job_id = story.accept().job_id
    ask(story, job_id)
    cancel(story, job_id)
    (first,) = claim(story)
    story.now += LEASE_S
    (second,) = claim(story)

    story.database.run_sync(lambda conn: mark_failed(conn, first, error="late", now=story.now, due_at=None))
    story.now += LEASE_S
    (third,) = claim(story)
    assert (second.attempt, third.attempt) == (2, 3)
    story.database.run_sync(lambda conn: mark_delivered(conn, third, now=story.now))

    story.now += 10 * LEASE_S
    assert not due(story)


def test_a_failed_try_is_due_again_when_it_says_and_one_given_up_never(story: Story) -> None:
    job_id = story.accept().job_id
    ask(story, job_id)
    cancel(story, job_id)
    (first,) = claim(story)
    story.database.run_sync(lambda conn: mark_failed(conn, first, error="503", now=story.now, due_at=story.now + 2))
    assert claim(story) == []

    story.now += 2
    (second,) = claim(story)
    story.database.run_sync(lambda conn: mark_failed(conn, second, error="410", now=story.now, due_at=None))

    story.now += 1e6
    assert claim(story) == []


def test_a_notice_of_something_deleted_is_handed_out_without_a_status(story: Story) -> None:
    job_id = story.accept().job_id
    ask(story, job_id)
    story.database.run_sync(lambda conn: conn.execute(text("DELETE FROM jobs")))

    (found,) = claim(story)

    assert found.status is None


ALL_SECRET = "whsec_" + "b" * 32


def settings(**gateway: Any) -> Settings:
    return Settings(_env_file=None, gateway=GatewaySettings(**gateway))  # pyright: ignore[reportCallIssue]


def test_a_notice_is_asked_for_only_where_there_is_a_target(story: Story) -> None:
    none, some = settings(), settings(webhook_url="https://a.example/", webhook_secret="whsec_" + "a" * 32)
    job_id = story.accept().job_id
    cancel(story, job_id)

    def notify(with_settings: Settings) -> None:
        story.database.run_sync(
            lambda conn: notify_when_done(
                conn, with_settings, tenant="default", subject="job", subject_id=job_id, now=story.now
            )
        )

    notify(none)
    assert not due(story)
    notify(some)
    assert due(story)


def test_a_tenants_own_target_comes_before_the_settings_one(database: Database) -> None:
    common = settings(webhook_url="https://all.example/", webhook_secret=ALL_SECRET)
    database.run_sync(
        lambda conn: save_tenant(
            conn, "mine", {"webhook_url": "https://mine.example/", "webhook_secret": "whsec_mine"}, now=1.0
        )
    )
    mine = database.read_sync(lambda conn: load_tenant(conn, "mine"))

    own, other = webhook_target(common, mine), webhook_target(common, Tenant("other"))

    assert own is not None
    assert (own.url, own.secret) == ("https://mine.example/", "whsec_mine")
    assert other is not None
    assert (other.url, other.secret) == ("https://all.example/", ALL_SECRET)
    assert "whsec" not in repr(own) + repr(mine)
