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
from collections.abc import Iterator
from pathlib import Path

from ...errors import RunError

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_SIGNS = ("authenticationerror", "invalidauthtoken", "unauthenticated", "no authentication token was found")


class TokenRefusedError(RunError):
    """A cluster that this process may not join."""


def token_file() -> Path:
    """Where Ray looks for a token that no variable gives."""
    return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token")


def has_token() -> bool:
    """Whether this process could show one."""
    return bool(os.environ.get(TOKEN)) or token_file().is_file()


def may_show_token(address: str) -> bool:
    """Whether there is a token for a cluster, and `RAY_AUTH_MODE` leaves it to us to show it."""
    return address != "local" and MODE not in os.environ and has_token()


@contextlib.contextmanager
def token_in_place(address: str, *, show: bool) -> Iterator[None]:
    """See to the token while Ray is started or connected to, and as long as that lasts; the environment is then as it was.

    A private instance without a token gets one that only its own processes know. A token file of ours that others can read is made private.

    Args:
        address: `local` or that of a cluster.
        show: Whether to show the cluster the token at hand. On clusters that want none, workers of a driver with a token die [measured],
            so it is shown only to who asked for it.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    _make_private(token_file())
    if address == "local" and not has_token():
        os.environ[TOKEN] = secrets.token_hex(32)
    elif show:
        os.environ[MODE] = "token"
    forget_cached_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        forget_cached_token()


def _make_private(file: Path) -> None:
    with contextlib.suppress(OSError):
        status = file.stat()
        if status.st_uid == os.getuid() and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)


def forget_cached_token() -> None:
    """Ray keeps mode and token of the first look for the life of a process."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def refused_token(error: BaseException) -> str | None:
    """What to do where an error of Ray, or what it arose from, speaks of a token that is missing or wrong; None where it does not."""
    if not any(sign in text for text in _texts(error) for sign in _SIGNS):
        return None
    known = f"the token in {token_file()} is not its own" if token_file().is_file() else "this process has none"
    if os.environ.get(TOKEN):
        known = f"{TOKEN} is not its own"
    return (
        f"the cluster wants its token, and {known}; set {MODE}=token and {TOKEN} to the token of the node where `ray start --head` ran "
        "(`ray get-auth-token` prints it there)"
    )


def _texts(error: BaseException | None) -> Iterator[str]:
    """Class and text of an error and of those that it arose from, in lower case."""
    for _ in range(20):
        if error is None:
            return
        yield f"{type(error).__name__}: {error}".lower()
        error = error.__cause__ or error.__context__
