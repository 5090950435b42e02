"""`k2think keys …`: API keys of the HTTP doors. Needs only the database."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.doors import KeyScope
from ..schemas.errors import InvalidRequest, K2ThinkError
from ..schemas.settings import load_settings
from .exits import drop_output
from .terminal import age, cell, console, print_json, table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..store.database import Database

DAY_S = 86_400
DAYS_MAX = 36_500
NAME_CHARS_MAX = 100

keys_app = typer.Typer(
    help="API keys of the HTTP doors: create, list, revoke. Needs only the database.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is: jobs, files and limits are the tenant's.")] = "default",
    name: Annotated[str, typer.Option(help="What to call it, so that you know it again.")] = "",
    scope: Annotated[
        KeyScope, typer.Option(help="What it opens: the API and the trace page, or /metrics.")
    ] = KeyScope.api,
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=DAYS_MAX, help="Days after which it opens nothing. Default: never.")
    ] = None,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept.

    From the first API key on, every gateway on this database asks for one, within five seconds.

    Examples:

      k2think keys create --name laptop

      export OPENAI_API_KEY=$(k2think keys create --tenant lab --expires-in-days 90)
    """
    from ..gateway.keys import new_key
    from ..store.keys import Key, add_key, forget_key

    check_tenant(tenant)
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise InvalidRequest(f"--name: at most {NAME_CHARS_MAX} printable characters")
    made = new_key()
    database = doors_database()

    def keep(connection: "Connection") -> None:
        now = database.now()
        expires_at = None if expires_in_days is None else now + expires_in_days * DAY_S
        add_key(connection, Key(made.id, tenant, name, scope, made.digest, now, expires_at))

    try:
        database.run_sync(keep)
        try:
            print(made.text, flush=True)
        except OSError as exc:
            database.run_sync(lambda connection: forget_key(connection, made.id))
            drop_output()
            raise K2ThinkError(
                f"the key could not be written ({exc.strerror}), so it was taken back: nothing has changed"
            ) from exc
    finally:
        database.close()
    opens = "the API and the trace page" if scope is KeyScope.api else "/metrics"
    until = "" if expires_in_days is None else f" for {expires_in_days} days"
    print(
        f"Key {made.id} of tenant {tenant} opens {opens}{until}. It is shown this once: keep it safe. "
        f"`k2think keys revoke {made.id}` takes it back.",
        file=sys.stderr,
    )


@keys_app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """List the keys, oldest first, by their public part.

    Example:

      k2think keys list --json | jq -r '.[] | select(.state == "valid") | .id'
    """
    from ..store.keys import list_keys

    database = doors_database()
    try:
        found = database.read_sync(lambda connection: list_keys(connection, tenant=tenant))
    finally:
        database.close()
    now = database.now()
    if as_json:
        names = ("id", "tenant", "name", "created_at", "expires_at", "revoked_at")
        rows = [{name: getattr(key, name) for name in names} for key in found]
        print_json(
            [row | {"scope": key.scope.value, "state": key.state(now)} for row, key in zip(rows, found, strict=True)]
        )
        return
    if not found:
        print("No keys: `k2think keys create` makes one.")
        return
    rows = table("ID", "TENANT", "SCOPE", "STATE", "AGE", "EXPIRES IN", "NAME", wide="NAME")
    for key in found:
        left = "never" if key.expires_at is None else f"{max(0.0, key.expires_at - now) / DAY_S:.0f} d"
        rows.add_row(
            key.id, cell(key.tenant), key.scope.value, key.state(now), age(key.created_at), left, cell(key.name)
        )
    console().print(rows)


@keys_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Public part of the key, as `list` shows it.")],
) -> None:
    """Take a key back: it opens nothing any more, at every gateway within five seconds.

    Example:

      k2think keys revoke abcdefghij
    """
    from ..gateway.keys import id_of
    from ..store.keys import revoke_key

    # Who pastes the whole key means its public part.
    public = id_of(key_id) or key_id
    database = doors_database()
    try:
        done = database.run_sync(lambda connection: revoke_key(connection, public, now=database.now()))
    finally:
        database.close()
    print(f"key {public}: revoked" if done else f"key {public}: had been revoked already")


def doors_database() -> "Database":
    """Open the configured database with our tables in it, made where they are missing. Raises SchemaMismatch."""
    from ..store.database import database_of
    from ..store.migrate import upgrade
    from ..workers.stack import prepare_data_dir

    settings = load_settings()
    if settings.database_url is None:
        prepare_data_dir(settings)
    upgrade(settings.sqlalchemy_url)
    return database_of(settings)


def check_tenant(name: str) -> None:
    """Raise InvalidRequest unless a tenant may be called so."""
    import re

    from ..store.tenants import TENANT_PATTERN

    if not re.fullmatch(TENANT_PATTERN, name):
        raise InvalidRequest(
            "a tenant's name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', the first a letter or digit"
        )
