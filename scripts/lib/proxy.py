"""A cable between two nodes on one host: TCP proxies that can be cut without either side noticing.

    proxy.py CONTROL LISTEN:TARGET...

Each LISTEN:TARGET is a port of 127.0.0.1 that is forwarded to another. The file CONTROL is looked
at ten times a second and says what happens to all connections:

    pass     everything goes through
    stop     nothing goes through, in silence: bytes wait, and so do new connections
    reset    what there is gets a reset; new ones too

`stop` followed by `pass` delivers late what was held back, as a congested line does; `stop`, `reset`,
`pass` loses it, as a cable that is out does.
"""

import selectors
import socket
import struct
import sys
import time

CHUNK = 65536


class Pipe:
    """One direction of a connection."""

    def __init__(self, source, target):
        self.source = source
        self.target = target
        self.buffer = b""
        self.ended = False


class Proxy:
    def __init__(self, control, forwards):
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.connections = []
        self.listeners = []
        self.mode = "pass"
        for listen, target in forwards:
            listener = socket.create_server(("127.0.0.1", listen))
            listener.setblocking(False)
            self.listeners.append((listener, target))

    def read_control(self):
        try:
            with open(self.control, encoding="ascii") as file:
                self.mode = file.read().strip() or self.mode
        except FileNotFoundError:
            pass

    def accept(self, listener, target):
        try:
            near, _ = listener.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(("127.0.0.1", target), timeout=2)
        except OSError:
            self.reset(near)
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        self.connections.append((near, far, Pipe(near, far), Pipe(far, near)))

    @staticmethod
    def reset(end):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()

    def drop(self, connection):
        self.connections.remove(connection)
        for end in connection[:2]:
            self.reset(end)

    def move(self, pipe):
        """Forwards what there is; false when the connection has failed."""
        try:
            if not pipe.buffer and not pipe.ended:
                pipe.buffer = pipe.source.recv(CHUNK)
                if not pipe.buffer:
                    pipe.ended = True
                    pipe.target.shutdown(socket.SHUT_WR)
            if pipe.buffer:
                pipe.buffer = pipe.buffer[pipe.target.send(pipe.buffer):]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def wait(self):
        """Until something can be done, at most a tenth of a second."""
        selector = selectors.DefaultSelector()
        for listener, _ in self.listeners:
            selector.register(listener, selectors.EVENT_READ)
        for near, far, there, back in self.connections:
            for end, incoming, outgoing in ((near, there, back), (far, back, there)):
                events = 0
                if not incoming.buffer and not incoming.ended:
                    events |= selectors.EVENT_READ
                if outgoing.buffer:
                    events |= selectors.EVENT_WRITE
                if events:
                    selector.register(end, events)
        ready = selector.select(0.1)
        selector.close()
        return {key.fileobj for key, _ in ready}

    def run(self):
        print("ready", flush=True)
        looked = 0.0
        while True:
            if time.monotonic() - looked > 0.1:
                self.read_control()
                looked = time.monotonic()
            if self.mode == "stop":
                time.sleep(0.05)
                self.read_control()
                continue
            ready = self.wait()
            if self.mode == "reset":
                for connection in list(self.connections):
                    self.drop(connection)
            for listener, target in self.listeners:
                if listener in ready:
                    self.accept(listener, target)
            for connection in list(self.connections):
                near, far, there, back = connection
                if near not in ready and far not in ready:
                    continue
                if not (self.move(there) and self.move(back)) or (there.ended and back.ended):
                    self.drop(connection)


def main():
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    forwards = [tuple(int(port) for port in word.split(":")) for word in sys.argv[2:]]
    Proxy(sys.argv[1], forwards).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
