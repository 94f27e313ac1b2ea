"""The token by which the processes of a Ray cluster know each other: made for a private instance and never written down, used where a
running cluster may want it.

Ray 2.60 makes one for every local instance and leaves it, readable by everybody, in the home directory; a `ray start --head` that comes
later finds it there and wants it from everybody.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


def token_file() -> Path:
    """Where Ray looks for a token that no variable gives."""
    return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token")


def has_token() -> bool:
    """Whether this process could show one."""
    return bool(os.environ.get(TOKEN)) or token_file().is_file()


def prepare_token(address: str) -> None:
    """See to the token before Ray starts or connects.

    A private instance without a token gets one that only its own processes know. A token file of ours that others can read is made private.
    Where a cluster is to be joined and there is a token, it is shown, unless `RAY_AUTH_MODE` says otherwise.
    """
    file = token_file()
    with contextlib.suppress(OSError):
        status = file.stat()
        if status.st_uid == os.getuid() and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    if address == "local":
        if not has_token():
            os.environ[TOKEN] = secrets.token_hex(32)
    elif MODE not in os.environ and has_token():
        os.environ[MODE] = "token"


def refused_token(text: str) -> str | None:
    """What to do where Ray's error speaks of a token that is missing or wrong, in one line; None where it does not."""
    if not any(word in text.lower() for word in ("authentication", "unauthenticated", "auth token", "token auth")):
        return None
    known = f"the token in {token_file()}" if token_file().is_file() else "no token"
    return (
        f"the cluster wants its token, and this process has {(os.environ.get(TOKEN) and 'another') or known}; set {MODE}=token and {TOKEN} to the "
        "token of the node where `ray start --head` ran (`ray get-auth-token` prints it there)"
    )
