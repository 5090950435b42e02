"""Reading what servers say when they fail."""

from email.utils import formatdate

import pytest
from k2think.agents.backends.errors import Origin, rate_limits, retry_after_s, server_words, status_error, stream_error
from k2think.schemas.errors import (
    BackendError,
    ContextTooLong,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    StreamBroken,
)
from pydantic import SecretStr

KEY = "sk-7d0c"
ORIGIN = Origin(name="fast", address="http://h/v1", model="m", key_variable="THE_VARIABLE", secret=SecretStr(KEY))
NOON_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": formatdate(NOON_S + 30, usegmt=True)}, 30.0),
        ({"Retry-After": formatdate(NOON_S - 30, usegmt=True)}, 0.0),
        # The server's clock is an hour ahead of ours: its own Date is what counts.
        (
            {"Retry-After": formatdate(NOON_S + 3630, usegmt=True), "Date": formatdate(NOON_S + 3600, usegmt=True)},
            30.0,
        ),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now_s=NOON_S) == seconds


def test_rate_limit_headers_are_kept_by_prefix() -> None:
    headers = {"X-RateLimit-Remaining-Tokens-Minute": "5", "Content-Type": "x", "x-ratelimit-reset": "9" * 500}
    kept = rate_limits(headers)
    assert kept["x-ratelimit-remaining-tokens-minute"] == "5"
    assert set(kept) == {"x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset"}
    assert len(kept["x-ratelimit-reset"]) == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no", "code": "c", "type": "t"}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
        (b'{"error": {"message": "no"}}', "no"),
        ("no", "no"),
        (None, ""),
        (b"<!DOCTYPE html><html></html>", "an HTML page, no API error"),
        (b"\xff\xfe", "��"),
        ([1], "[1]"),
    ],
)
def test_every_usual_shape_of_an_error_body_is_read(body: object, message: str) -> None:
    assert server_words(body).message == message


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens.",
        "the request exceeds the available context size, try increasing it",
        "Please reduce the length of the messages or completion.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "prompt is too long: 9000 tokens > 8192 maximum",
    ],
)
def test_the_phrases_of_a_full_context(message: str) -> None:
    assert isinstance(status_error(400, {"error": {"message": message}}, headers={}, origin=ORIGIN), ContextTooLong)


def test_an_unknown_model_by_code() -> None:
    body = {"error": {"message": "no such model", "code": "model_not_found"}}
    assert isinstance(status_error(400, body, headers={}, origin=ORIGIN), ModelNotFound)


@pytest.mark.parametrize("status", [300, 307, 400, 401, 402, 403, 404, 413, 418, 429, 500, 599])
def test_the_key_never_shows(status: int) -> None:
    error = status_error(status, {"error": {"message": f"key {KEY} is wrong"}}, headers={}, origin=ORIGIN)
    assert KEY not in str(error)
    assert str(error).startswith("backend 'fast' at http://h/v1: ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "gone", "code": 503}}, Overloaded),
        ({"error": {"message": "gone", "type": "internal_error"}}, Overloaded),
        ({"error": {"message": "gone"}, "status_code": 503}, Overloaded),
        ({"error": {"message": "no credit"}, "status_code": 402}, PaymentRequired),
        ({"error": {"message": "gone"}}, StreamBroken),
        ({"error": "gone"}, StreamBroken),
        ({"error": {"message": "x", "code": 400, "type": "exceed_context_size_error"}}, ContextTooLong),
        # Cerebras' words of a spent quota sound like those of a full context.
        ({"error": {"message": "too many tokens processed", "code": "token_quota_exceeded"}}, RateLimited),
        ({"message": "high traffic", "type": "too_many_requests_error", "code": "queue_exceeded"}, Overloaded),
    ],
)
def test_errors_inside_a_stream(body: object, expected: type[BackendError]) -> None:
    assert type(stream_error(body, origin=ORIGIN)) is expected


@pytest.mark.parametrize(
    ("code", "expected", "quota", "words"),
    [
        ("token_quota_exceeded", RateLimited, "tokens", "the quota of tokens is used up"),
        ("request_quota_exceeded", RateLimited, "requests", "the quota of requests is used up"),
        ("queue_exceeded", Overloaded, None, "its queue is full"),
        ("rate_limit_exceeded", RateLimited, None, "too many requests"),
    ],
)
def test_a_429_says_whose_limit_was_met(code: str, expected: type[BackendError], quota: str | None, words: str) -> None:
    body = {"message": "slow down", "type": "too_many_tokens_error", "param": "quota", "code": code}
    error = status_error(429, body, headers={"Retry-After": "3"}, origin=ORIGIN)
    assert type(error) is expected
    assert (error.status, error.retry_after_s, getattr(error, "quota", None)) == (429, 3.0, quota)
    assert words in str(error)
    assert "retry after 3 s" in str(error)


@pytest.mark.parametrize("status", [402, 429, 503])
def test_a_refusal_keeps_the_rate_headers(status: int) -> None:
    headers = {"X-RateLimit-Remaining-Requests-Day": "7", "Content-Type": "application/json"}
    error = status_error(status, b"{}", headers=headers, origin=ORIGIN)
    assert error.rate_limits == {"x-ratelimit-remaining-requests-day": "7"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "11.5"}, 11.5),
        ({"x-ratelimit-remaining-tokens-minute": "9", "x-ratelimit-reset-tokens-minute": "11.5"}, None),
        (
            {
                "x-ratelimit-remaining-tokens-minute": "0",
                "x-ratelimit-reset-tokens-minute": "11.5",
                "x-ratelimit-remaining-requests-day": "0",
                "x-ratelimit-reset-requests-day": "33011.4",
            },
            33011.4,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"Retry-After": "2", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "11.5"}, 2.0),
    ],
)
def test_a_429_without_a_time_to_wait_waits_for_the_quota(headers: dict[str, str], seconds: float | None) -> None:
    assert status_error(429, b"{}", headers=headers, origin=ORIGIN).retry_after_s == seconds
    assert status_error(402, b"{}", headers=headers, origin=ORIGIN).retry_after_s == retry_after_s(headers)
