"""The clients of a chaos run: jobs and batches over HTTP, jobs by the Celery door, and a ledger of its own that outlives everything."""

import asyncio
import hashlib
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from celery_caller import CeleryCaller
from model import BROKEN, KILLER

CELERY_SHARE = 0.05
REPEATED_SHARE = 0.10
CANCELLED_SHARE = 0.05
POISON_SHARE = 0.02
FOLLOWED_SHARE = 0.10
KEYED_SHARE = 0.8
BATCHES = 2
BAD_LINE_EVERY = 10
ODD_TEXT = "A text with \u202e, \u0001, \U0001f9ea and 50,000 letters: " + "x" * 50_000
REQUEST_TIMEOUT_S = 10.0
GIVE_UP_S = 180.0
SEND_AGAIN_S = 20.0
"""How long a caller of the Celery door waits for its answer until it sends the same again."""
FINAL = ("succeeded", "refused", "failed", "cancelled", "expired")
BATCH_FINAL = ("completed", "failed", "expired", "cancelled")


class Ledger:
    """Lines of JSON, each on the disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    async def write(self, **facts: Any) -> None:
        """Add a line."""
        await asyncio.to_thread(self._write, json.dumps({"at": time.time(), **facts}))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class Job:
    """One job as the client knows it."""

    number: int
    body: dict[str, Any]
    key: str | None
    """Idempotency key; None = none is sent."""
    kind: str
    """plain, cancelled, killer, broken or odd."""
    celery: bool
    """Whether it comes in by the Celery door, whose answer is the result."""
    repeated: bool
    followed: bool
    ids: list[str] = field(default_factory=list[str])
    """What its submissions were answered with."""
    asked: int = 0
    """How often it was sent by the Celery door."""
    unclear: int = 0
    """Submissions that may or may not have been accepted."""
    cancel_answer: str | None = None
    """Status that the cancelling was answered with."""
    digest: str | None = None
    """Of the result that was shown."""


@dataclass
class Batch:
    """One batch as the client knows it."""

    custom_ids: list[str]
    bad: set[str]
    """Those of lines that come to no answer."""
    content: bytes
    key: str
    id: str = ""
    object: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of both output files."""


def digest_of(result: dict[str, Any]) -> str:
    """A digest of a result."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


class Load:
    """Sends the jobs, evenly over a time, and the batches."""

    def __init__(
        self,
        *,
        jobs: int,
        killers: int,
        seconds: float,
        seed: int,
        url: str,
        key: str,
        redis_url: str,
        ledger: Ledger,
    ) -> None:
        """`killers` of the poisoned jobs kill their worker: each takes three of them, with all that ran there."""
        self._random = random.Random(f"load/{seed}")
        self._seed = seed
        self._seconds = seconds
        self._url = url
        self._key = key
        self._redis_url = redis_url
        self._ledger = ledger
        kinds = self._kinds(jobs, killers)
        self.jobs = [self._job(number, kind) for number, kind in enumerate(kinds)]
        self.batches = [self._batch(number, max(10, jobs // 20)) for number in range(BATCHES)]
        self.problems: list[str] = []
        """What the gateway did that it must not."""

    def _kinds(self, jobs: int, killers: int) -> list[str]:
        poison = max(killers + 2, round(jobs * POISON_SHARE))
        bad = ["killer"] * killers + ["odd", "broken"] * poison
        kinds = bad[:poison] + ["cancelled"] * max(1, round(jobs * CANCELLED_SHARE))
        kinds += ["plain"] * (jobs - len(kinds))
        self._random.shuffle(kinds)
        return kinds

    def _job(self, number: int, kind: str) -> Job:
        chance = self._random
        mark = {"killer": KILLER, "broken": BROKEN, "odd": ODD_TEXT}.get(kind, "")
        policy: dict[str, Any] = {
            "n": 1 if kind == "killer" else chance.choice((1, 2, 3, 3)),
            "plan": "off" if kind == "killer" else chance.choice(("off", "off", "shared", "per_sample")),
            "selection": chance.choice(("consensus_then_pairwise", "consensus_then_pairwise", "pairwise", "vote")),
            "priority": chance.choice(("interactive", "normal", "batch")),
        }
        problem = f"What is 347 + 58? (problem {number} of {self._seed}) {mark}"
        celery = kind == "plain" and chance.random() < CELERY_SHARE
        keyed = celery or chance.random() < KEYED_SHARE
        return Job(
            number=number,
            body={"problem": problem, "policy": policy, "metadata": {"number": str(number)}},
            key=f"chaos-{self._seed}-{number}" if keyed else None,
            kind=kind,
            celery=celery,
            repeated=not celery and keyed and chance.random() < REPEATED_SHARE / KEYED_SHARE,
            followed=not celery and chance.random() < FOLLOWED_SHARE,
        )

    def _batch(self, number: int, lines: int) -> Batch:
        ids = [f"line-{number}-{line}" for line in range(lines)]
        bad = set(ids[::BAD_LINE_EVERY])
        rows: list[bytes] = []
        for custom_id in ids:
            body: dict[str, Any] = {
                "model": "k2think",
                "reasoning_effort": "minimal",
                "messages": [{"role": "user", "content": f"What is 347 + 58? ({custom_id})"}],
            }
            if custom_id in bad:
                body["k2think"] = {"checks": {"answer_form": "interval"}}
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
            rows.append(json.dumps(line).encode())
        return Batch(ids, bad, b"\n".join(rows) + b"\n", f"chaos-batch-{self._seed}-{number}")

    async def __aenter__(self) -> "Load":
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=64),
        )
        self._celery = CeleryCaller(self._redis_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._celery.close()
        await self._http.close()
        self._ledger.close()

    async def run(self) -> None:
        """Send everything; returns when all of it was accepted."""
        pause_s = self._seconds / len(self.jobs)
        jobs = [self._send_job(job, at_s=job.number * pause_s) for job in self.jobs]
        batches = [self._send_batch(batch, at_s=1.0 + self._seconds / 3 * i) for i, batch in enumerate(self.batches)]
        for outcome in await asyncio.gather(*jobs, *batches, return_exceptions=True):
            if isinstance(outcome, BaseException):
                self.problems.append(repr(outcome))

    async def _send_job(self, job: Job, *, at_s: float) -> None:
        await asyncio.sleep(at_s)
        if job.celery:
            await self._ask(job)
            return
        await self._submit(job)
        if job.kind == "cancelled":
            await asyncio.sleep(self._random.random())
            answer = await self.request("POST", f"/v1/jobs/{job.ids[0]}/cancel")
            job.cancel_answer = answer["status"]
            await self._ledger.write(cancelled=job.ids[0], status=job.cancel_answer)
        if job.repeated:
            await asyncio.sleep(2 * self._random.random())
            await self._submit(job)
        while job.followed:
            await asyncio.sleep(1)
            found = await self.request("GET", f"/v1/jobs/{job.ids[0]}")
            if found["status"] in FINAL:
                job.digest = digest_of(found["result"])
                await self._ledger.write(shown=job.ids[0], digest=job.digest)
                return

    async def _ask(self, job: Job) -> None:
        """Send it by the Celery door until it is answered: Redis may lose the message, and the answer."""
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            job.asked += 1
            await self._ledger.write(asked=job.number, key=job.key)
            answer = await self._celery.ask({**job.body, "idempotency_key": job.key}, patience_s=SEND_AGAIN_S)
            if answer is not None and answer["job_id"]:
                break
            if answer is not None and answer["error"]["code"] != "queue_full":
                raise RuntimeError(f"the Celery door: {answer['error']}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Celery door: job {job.number} was not answered for {GIVE_UP_S:.0f} s")
            await asyncio.sleep(random.uniform(0.1, 0.5))
        job.ids.append(answer["job_id"])
        job.digest = digest_of(answer)
        await self._ledger.write(answered=answer["job_id"], number=job.number, digest=job.digest)

    async def _submit(self, job: Job) -> None:
        headers = {} if job.key is None else {"Idempotency-Key": job.key}

        def unclear() -> None:
            job.unclear += 1

        answer = await self.request("POST", "/v1/jobs", json=job.body, headers=headers, unclear=unclear)
        job.ids.append(answer["id"])
        await self._ledger.write(accepted=answer["id"], number=job.number, key=job.key)

    async def _send_batch(self, batch: Batch, *, at_s: float) -> None:
        await asyncio.sleep(at_s)
        headers = {"Idempotency-Key": batch.key}
        file = await self.request("POST", "/v1/files", content=batch.content, headers=headers)
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = await self.request("POST", "/v1/batches", json=body, headers=headers)
        batch.id = made["id"]
        await self._ledger.write(batch=batch.id)

    async def collect_batch(self, batch: Batch) -> None:
        """Look at a batch, and download what it came to."""
        if not batch.id:
            return
        batch.object = await self.request("GET", f"/v1/batches/{batch.id}")
        for name in ("output_file_id", "error_file_id"):
            if batch.object.get(name):
                raw = await self.request("GET", f"/v1/files/{batch.object[name]}/content", parsed=False)
                batch.lines += [json.loads(line) for line in raw.splitlines()]

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        parsed: bool = True,
        unclear: Any = None,
        **options: Any,
    ) -> Any:
        """Send until it is answered with 2xx, and return the body. Raises RuntimeError for a 4xx that is no 429."""
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            if content is not None:
                form = aiohttp.FormData()
                form.add_field("purpose", "batch")
                form.add_field("file", content, filename="input.jsonl")
                options["data"] = form
            try:
                async with self._http.request(method, self._url + path, **options) as response:
                    raw = await response.read()
                    if response.status < 300:
                        return json.loads(raw) if parsed else raw
                    if response.status < 500 and response.status != 429:
                        raise RuntimeError(f"{method} {path}: {response.status} {raw[:300]!r}")
                    words = f"{response.status} {raw[:300]!r}"
                    if response.status == 500:
                        self.problems.append(f"{method} {path}: {words}")
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                words = repr(exc)
            if unclear is not None:
                unclear()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: not answered for {GIVE_UP_S:.0f} s, at last {words}")
            await asyncio.sleep(random.uniform(0.1, 0.5))
