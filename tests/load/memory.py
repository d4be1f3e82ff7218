"""The gateway's memory under a hard limit: see tests/memory.sh."""

import hashlib
import hmac
import os
import selectors
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from gateway import SECRET, Gateway, application, destination, mib, raise_open_files, result, source  # noqa: E402

LIMIT = 128 << 20
IDLE = 10_000
BODIES = 2_000
BODY_LIMIT = 1 << 20
BUDGET = 64 << 20
BASE = 64 << 20
CONNECTION = 64 << 10


class Cgroup:
    """A control group of version 1 whose memory is limited."""

    def __init__(self, root="/sys/fs/cgroup/memory"):
        self.path = os.path.join(root, f"forebay-{os.getpid()}")
        try:
            os.mkdir(self.path)
            self.write("memory.limit_in_bytes", str(LIMIT))
        except OSError as error:
            sys.exit(f"FAILED: NOTHING WAS CHECKED: there is no memory cgroup (version 1) to be had here: {error}")

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w") as file:
            file.write(text)

    def read(self, name):
        with open(os.path.join(self.path, name)) as file:
            return file.read()

    def enter(self):
        self.write("cgroup.procs", str(os.getpid()))

    def kills(self):
        return int(next(line.split()[1] for line in self.read("memory.oom_control").splitlines() if line.startswith("oom_kill ")))

    def most(self):
        return int(self.read("memory.max_usage_in_bytes"))

    def remove(self):
        os.rmdir(self.path)


def idle_connections(gateway):
    """Opens them all, each with one request answered, and keeps them."""
    open_ones = []
    for _ in range(IDLE):
        connection = gateway.connect()
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
        open_ones.append(connection)
    for connection in open_ones:
        assert connection.recv(4096).startswith(b"HTTP/1.1 404"), "not answered"
    return open_ones


def held_bodies(gateway, seconds):
    """Sends all but the last byte of as many bodies as are taken, and holds them; how many were, and were turned away."""
    head = f"POST /github HTTP/1.1\r\nHost: h\r\nContent-Length: {BODY_LIMIT - 1}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    chunk = memoryview(bytes(64 << 10))
    left, refused, open_ones = {}, 0, []
    for _ in range(BODIES):
        connection = gateway.connect()
        connection.sendall(head)
        connection.setblocking(False)
        left[connection] = BODY_LIMIT - 2
        open_ones.append(connection)
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
    until = time.monotonic() + seconds
    most = 0
    while time.monotonic() < until and selector.get_map():
        for key, events in selector.select(0.1):
            connection = key.fileobj
            try:
                if events & selectors.EVENT_READ:
                    answer = connection.recv(4096)
                    refused += answer.startswith(b"HTTP/1.1 503")
                    selector.unregister(connection)
                elif left[connection] > 0:
                    left[connection] -= connection.send(chunk[: left[connection]])
                else:
                    selector.modify(connection, selectors.EVENT_READ)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(connection)
        most = max(most, gateway.resident())
    held = sum(1 for bytes_left in left.values() if bytes_left == 0)
    for connection in open_ones:
        connection.close()
    return held, refused, most


BOMBS = [
    b"[" * (BODY_LIMIT - 2),
    b'{"a":' * 200_000,
    b'{"a":' + b"9" * 1_000_000 + b"}",
    b'{"' + b"k" * 1_000_000 + b'":1}',
    b"id=1&" * 200_000,
    b"&" * (BODY_LIMIT - 2),
    b"--b\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\nx\r\n" * 18_000,
]


def bombs(gateway, source_name, workers=16, each=12):
    """Signed bodies that are hostile to whoever takes them apart; how many were not answered 200."""
    failures = []

    def work(worker):
        for number in range(each):
            body = BOMBS[(worker + number) % len(BOMBS)]
            body = (b" " + str(worker * each + number).encode()).join([body[:-12], b""])
            signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            head = (
                f"POST /{source_name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Hub-Signature-256: sha256={signature}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            try:
                with gateway.connect() as connection:
                    connection.sendall(head.encode() + body)
                    answer = connection.recv(4096)
            except OSError as error:
                answer = repr(error).encode()
            if not answer.startswith(b"HTTP/1.1 200"):
                failures.append(answer[:60])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def main():
    binaries = sys.argv[1]
    raise_open_files(IDLE + 1024)
    problems = []
    with application(binaries) as app:
        sources = source("github", "app") + source("json", "", ', dedupe: { key: "json:/a/id" }')
        sources += source("form", "", ', dedupe: { key: "form:id" }')

        def scenario(what, connections, budget, attack):
            """A gateway of its own in a cgroup of its own, so that each attack is met by what is allowed at the start."""
            group = Cgroup()
            gateway = Gateway(binaries, sources, destination("app", app), before_exec=group.enter)
            most, failed = 0, None
            try:
                most, failed = attack(gateway)
                genuine = result(gateway.sender("github", "--rate", "50", "--seconds", "2"))
                if genuine["ok"] != genuine["sent"]:
                    failed = failed or f"genuine requests failed after it: {genuine}"
            except (OSError, AssertionError) as error:
                failed = repr(error)
            formula = BASE + connections * CONNECTION + budget
            if group.kills() or gateway.process.poll() is not None:
                failed = "the gateway was killed for want of memory"
            elif most > formula:
                failed = failed or "more than the formula"
            print(f"{what:44} RSS {mib(most):>10} of {mib(formula):>10}, cgroup {mib(group.most()):>10} of {mib(LIMIT)}"
                  f"{': FAILED: ' + failed if failed else ''}", flush=True)
            if failed:
                problems.append(what)
            gateway.stop()
            group.remove()

        def idle(gateway):
            connections = idle_connections(gateway)
            most = gateway.resident()
            for connection in connections:
                connection.close()
            gateway.wait_until(lambda: gateway.metric("forebay_connections") < 10, 40, "connections do not end")
            return most, None

        def bodies(gateway):
            held, refused, most = held_bodies(gateway, 4)
            print(f"  {held} bodies held, {refused} answered 503")
            good = 0 < held * BODY_LIMIT <= BUDGET and refused > 0
            return most, None if good else "the budget does not hold, or was not reached"

        def bombs_as(name):
            def attack(gateway):
                failures = bombs(gateway, name)
                return gateway.resident(), f"{len(failures)} were not answered 200: {failures[:3]}" if failures else None
            return attack

        scenario("nothing", 0, 0, lambda gateway: (gateway.resident(), None))
        scenario(f"{IDLE} idle connections", IDLE, 0, idle)
        scenario(f"{BODIES} bodies of 1 MiB - 1 at a time", BODIES, BUDGET, bodies)
        scenario("192 bombs as JSON, 16 at a time", 16, BUDGET, bombs_as("json"))
        scenario("192 bombs as forms, 16 at a time", 16, BUDGET, bombs_as("form"))
    print("FAILED" if problems else "all of it held")
    sys.exit(1 if problems else 0)


main()
