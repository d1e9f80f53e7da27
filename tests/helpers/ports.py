"""Ports of the tests' servers. (Of the standard library alone: conftest.py needs it early.)"""

import socket

RESERVED: list[socket.socket] = []


def reserve_port() -> int:
    """Finds a free port, and keeps other programs from it until this process ends.

    A port that was found and given up again may be another program's a moment later. This one is
    bound by a socket that does not listen, so connections are refused; but a server that sets
    SO_REUSEADDR, as those of `http.server` and torch do, can listen there nevertheless.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("", 0))
    RESERVED.append(reserved)
    return reserved.getsockname()[1]
