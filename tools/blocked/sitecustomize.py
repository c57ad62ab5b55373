"""Python imports this at its start where tools/offline.py has put it on the path: sockets reach the
loopback only."""

import errno
import socket


def _guard(method):
    def guarded(self, *arguments):
        address = arguments[
            -1
        ]  # connect(address), connect_ex(address), sendto(data[, flags], address)
        inside = self.family not in (socket.AF_INET, socket.AF_INET6) or (
            address[0] in ("", "localhost", "::1") or address[0].startswith("127.")
        )
        if not inside:
            raise OSError(
                errno.ENETUNREACH, f"the network is blocked in this run; refused {address[0]}"
            )
        return method(self, *arguments)

    return guarded


for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guard(getattr(socket.socket, _name)))
