"""Ctrl-C means here what it means in a terminal, also where the suite was started in the background, which ignores SIGINT."""

import signal

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a child process gets the default back only if it is not ignored here
