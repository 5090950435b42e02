"""`k2think redis acl`: users of Redis for each kind of process."""

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..schemas.errors import InvalidRequest
from .terminal import print_json

PASSWORD_BYTES = 24

redis_app = typer.Typer(help="Redis: access control lists for each kind of process.", no_args_is_help=True)


@redis_app.command("acl")
def acl(
    output: Annotated[
        Path | None, typer.Option(help="File to write the lists to (mode 600); without it they go to standard output.")
    ] = None,
    replication: Annotated[
        bool, typer.Option("--replication", help="Also the users that replicas and Sentinels need.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passwords as JSON.")] = False,
) -> None:
    """Make an ACL file for Redis: one user for each kind of process, each with a new password.

    The file (`aclfile` in redis.conf) holds digests only.
    The passwords are printed this once, on standard error; on standard output where the file is named.

    Examples:

      k2think redis acl --output users.acl

      k2think redis acl --output users.acl --replication --json > passwords.json
    """
    from ..workers.redis_acl import DEFAULT_USER_OFF, REPLICATION_USERS, USERS

    users = (*USERS, *(REPLICATION_USERS if replication else ()))
    passwords = {user.name: secrets.token_urlsafe(PASSWORD_BYTES) for user in users}
    lines = "\n".join([DEFAULT_USER_OFF, *(user.line(passwords[user.name]) for user in users)])
    if output is None:
        print(lines)
    else:
        try:
            output.touch(mode=0o600, exist_ok=False)
            output.write_text(lines + "\n")
        except FileExistsError:
            raise InvalidRequest(f"--output: {output} exists already; its users would get other passwords") from None
        except OSError as exc:
            raise InvalidRequest(f"--output: {output} cannot be written ({exc.strerror})") from exc
    if as_json and output is not None:
        print_json(passwords)
        return
    to = sys.stderr if output is None else sys.stdout
    if as_json:
        print(json.dumps(passwords), file=to)
        return
    for user in users:
        print(f"{user.name}  {passwords[user.name]}  {user.serves}", file=to)
