"""`k2think tenants …`: what each tenant may use, and where its webhooks go. Needs only the database."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..schemas.errors import InvalidRequest
from .keys import AsJson, check_tenant, doors_database
from .terminal import cell, console, plain, print_json, table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..store.tenants import Tenant

DAY_S = 86_400
LIMIT_MAX = {
    "requests_per_minute": 2**31 - 1,
    "jobs_in_flight": 2**31 - 1,
    "tokens_per_day": 2**63 - 1,
    "stored_bytes": 2**63 - 1,
}
"""The limits, and the greatest number that the database takes."""
NONE = "none"

tenants_app = typer.Typer(
    help="Limits and webhook target of each tenant: list, show, set. Needs only the database.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.")]


@tenants_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the tenants that have a key, a limit or a webhook target."""
    from ..store.tenants import list_tenants

    database = doors_database()
    try:
        found = database.read_sync(list_tenants)
    finally:
        database.close()
    if as_json:
        print_json([_as_json(tenant) for tenant in found])
        return
    if not found:
        print("No tenants: `k2think keys create --tenant NAME` or `k2think tenants set NAME …` makes one.")
        return
    rows = table("TENANT", "REQUESTS/MIN", "JOBS IN FLIGHT", "TOKENS/DAY", "STORED BYTES", "WEBHOOK", wide="WEBHOOK")
    for tenant in found:
        limits = (_shown(getattr(tenant, name)) for name in LIMIT_MAX)
        rows.add_row(cell(tenant.tenant), *limits, cell(tenant.webhook_url or "-"))
    console().print(rows)


@tenants_app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a tenant's limits, how much of them it uses just now, and where its webhooks go.

    Example:

      k2think tenants show lab
    """
    from ..store.tenants import jobs_in_flight, load_tenant, stored_bytes, tokens_since

    check_tenant(name)
    database = doors_database()

    def look(connection: "Connection") -> "tuple[Tenant, int, int, int]":
        now = database.now()
        return (
            load_tenant(connection, name),
            jobs_in_flight(connection, name),
            tokens_since(connection, name, now - now % DAY_S),
            stored_bytes(connection, name),
        )

    try:
        tenant, *used = database.read_sync(look)
    finally:
        database.close()
    usage = dict(zip(("jobs_in_flight", "tokens_per_day", "stored_bytes"), used, strict=True))
    if as_json:
        print_json(_as_json(tenant) | {"used": usage})
        return
    print(f"tenant {tenant.tenant}")
    for limit in LIMIT_MAX:
        used_now = f", {usage[limit]} used" if limit in usage else ""
        print(f"  {limit.replace('_', ' ')}: {_shown(getattr(tenant, limit))}{used_now}")
    print(f"  webhooks go to: {plain(tenant.webhook_url) if tenant.webhook_url else 'the settings’ target, if any'}")


@tenants_app.command("set")
def set_(
    name: Name,
    requests_per_minute: Annotated[
        str | None, typer.Option(help="Requests that create something, per minute.", metavar="N|none")
    ] = None,
    jobs_in_flight: Annotated[
        str | None, typer.Option(help="Unfinished jobs at once; lines of batches count.", metavar="N|none")
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option(help="Tokens of the jobs that end in a UTC day.", metavar="N|none")
    ] = None,
    stored_bytes: Annotated[str | None, typer.Option(help="Bytes of all files together.", metavar="N|none")] = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="Where its webhooks go; none = to the settings' target.", metavar="URL|none")
    ] = None,
    webhook_secret_stdin: Annotated[
        bool, typer.Option("--webhook-secret-stdin", help="Read the secret that signs them (whsec_…) from stdin.")
    ] = False,
    webhook_secret_generated: Annotated[
        bool, typer.Option("--webhook-secret-generated", help="Make a new secret, and print it this once.")
    ] = False,
) -> None:
    """Set a tenant's limits and its webhook target; what is not named stays. `none` takes a limit away.

    A new target gets a fresh secret where none is given, which is printed once. Gateways notice within five seconds.

    Examples:

      k2think tenants set lab --requests-per-minute 60 --jobs-in-flight 20 --tokens-per-day 2000000

      k2think tenants set lab --webhook-url https://lab.example/hook

      k2think tenants set lab --webhook-secret-stdin < secret.txt
    """
    from ..schemas.webhooks import new_secret
    from ..store.tenants import load_tenant, save_tenant

    check_tenant(name)
    given = {
        "requests_per_minute": requests_per_minute,
        "jobs_in_flight": jobs_in_flight,
        "tokens_per_day": tokens_per_day,
        "stored_bytes": stored_bytes,
    }
    changes: dict[str, Any] = {limit: _number(limit, value) for limit, value in given.items() if value is not None}
    if webhook_url is not None:
        changes["webhook_url"] = _url(webhook_url)
    if webhook_secret_stdin and webhook_secret_generated:
        raise InvalidRequest("--webhook-secret-stdin and --webhook-secret-generated: choose one")
    secret = _secret_from_stdin() if webhook_secret_stdin else new_secret() if webhook_secret_generated else None
    if not changes and secret is None:
        raise InvalidRequest("nothing to set: name a limit or a target (`k2think tenants set --help`)")
    database = doors_database()
    try:
        before = database.read_sync(lambda connection: load_tenant(connection, name))
        url = changes.get("webhook_url", before.webhook_url)
        if url is None:
            if secret is not None:
                raise InvalidRequest("a secret without a target: give --webhook-url with it")
            changes["webhook_secret"] = None
        elif secret is None and before.webhook_secret is None:
            secret, webhook_secret_generated = new_secret(), True
        if secret is not None:
            changes["webhook_secret"] = secret
        after = database.run_sync(lambda connection: save_tenant(connection, name, changes, now=database.now()))
    finally:
        database.close()
    if webhook_secret_generated and secret is not None:
        print(secret)
        print("The secret that signs this tenant's webhooks. It is shown this once: keep it safe.", file=sys.stderr)
    limits = ", ".join(f"{limit.replace('_', ' ')} {_shown(getattr(after, limit))}" for limit in LIMIT_MAX)
    print(
        f"tenant {name}: {limits}; webhooks {'to its own target' if after.webhook_url else 'as in the settings'}",
        file=sys.stderr,
    )


def _as_json(tenant: "Tenant") -> dict[str, Any]:
    names = ("tenant", "created_at", *LIMIT_MAX, "webhook_url")
    return {name: getattr(tenant, name) for name in names} | {"webhook_secret_set": tenant.webhook_secret is not None}


def _shown(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)


def _number(limit: str, value: str) -> int | None:
    if value.strip().lower() == NONE:
        return None
    number = int(value) if value.isascii() and value.isdigit() else -1
    if not 0 <= number <= LIMIT_MAX[limit]:
        option = limit.replace("_", "-")
        raise InvalidRequest(
            f"--{option}: {value[:40]!r} is neither `none` nor a whole number from 0 to {LIMIT_MAX[limit]}"
        )
    return number


def _url(value: str) -> str | None:
    from ..schemas.webhooks import check_webhook_url

    if value.strip().lower() == NONE:
        return None
    try:
        return check_webhook_url(value)
    except ValueError as exc:
        raise InvalidRequest(f"--webhook-url: {exc}") from exc


def _secret_from_stdin() -> str:
    from ..schemas.webhooks import secret_bytes

    secret = sys.stdin.readline(1_000).strip()
    try:
        secret_bytes(secret)
    except ValueError as exc:
        raise InvalidRequest(f"--webhook-secret-stdin: {exc}") from exc
    return secret
