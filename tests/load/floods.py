"""Genuine senders while the gateway is under attack: see tests/floods.sh."""

import argparse
import os
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from gateway import Gateway, application, destination, mib, raise_open_files, result, source  # noqa: E402

RATE = 200
CONNECTIONS = 2000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(value):
    assert len(value) < 127
    return bytes([len(value)]) + value.encode()


def head(path):
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "h")]
    return b"".join(b"\0" + text(name) + text(value) for name, value in pairs)


HEAD = head("/github")


def again(piece):
    return lambda first: piece * 500


def requests_and(after):
    """Request after request, each followed by what `after` makes of its number; the numbers go on."""
    return lambda first: b"".join(frame(1, 4, n, HEAD) + after(n) for n in range(first, first + 400, 2))


FLOODS = {
    "h2 rapid reset": requests_and(lambda n: frame(3, 0, n, (8).to_bytes(4, "big"))),
    "h2 provoked resets": requests_and(lambda n: frame(8, 0, n, bytes(4))),
    "h2 continuation": lambda first: (frame(1, 0, 1, HEAD) if first == 1 else b"") + frame(9, 0, 1, b"\0\1x\1y" * 100) * 50,
    "h2 ping": again(frame(6, 0, 0, bytes(8))),
    "h2 settings": again(frame(4, 0, 0, bytes([0, 4, 0, 0, 255, 255]))),
    "h2 empty data": lambda first: (frame(1, 4, 1, HEAD) if first == 1 else b"") + frame(0, 0, 1) * 500,
    "h2 priorities": again(frame(2, 0, 5, bytes([0, 0, 0, 3, 9]))),
    "h2 window of nothing": lambda first: frame(4, 0, 0, bytes([0, 4, 0, 0, 0, 0])) + b"".join(
        frame(1, 5, n, HEAD) for n in range(first, first + 40, 2)
    ),
}


class H2Flood:
    """Connections that flood, from some threads; a connection that is closed is opened again."""

    def __init__(self, gateway, make, threads=8):
        self.gateway, self.make = gateway, make
        self.stopped = threading.Event()
        self.closed = 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopped.is_set():
            try:
                with self.gateway.connect() as connection:
                    connection.settimeout(2)
                    connection.sendall(PREFACE)
                    first = 1
                    while not self.stopped.is_set():
                        connection.sendall(self.make(first))
                        first += 400
                        connection.setblocking(False)
                        try:
                            while connection.recv(65536):
                                pass
                            break
                        except BlockingIOError:
                            pass
                        connection.settimeout(2)
            except OSError:
                pass
            self.closed += 1

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(5)
        return f"{self.closed} connections closed"


class SlowHttpTest:
    MODES = {
        "slowhttptest -H, slow heads": ["-H", "-i", "3", "-x", "24"],
        "slowhttptest -B, slow bodies": ["-B", "-i", "3", "-s", "8192", "-x", "10"],
        "slowhttptest -R, ranges": ["-R", "-t", "HEAD", "-a", "10", "-b", "3000"],
        "slowhttptest -X, slow reading": ["-X", "-w", "1", "-y", "8", "-n", "3", "-z", "4", "-k", "50"],
    }

    def __init__(self, gateway, mode, seconds):
        command = ["slowhttptest", *self.MODES[mode], "-c", str(CONNECTIONS), "-r", "1000", "-l", str(seconds), "-p", "5"]
        url = f"http://127.0.0.1:{gateway.port}/github"
        self.process = subprocess.Popen([*command, "-u", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.gateway, self.most = gateway, 0

    def stop(self):
        self.process.terminate()
        self.process.wait()
        return ""


def closes_in_time(gateway):
    """How long connections that stall in their heads, or say nothing, are kept: seconds, the longest."""
    took = []

    def one(sent):
        with gateway.connect() as connection:
            connection.sendall(sent)
            began = time.monotonic()
            try:
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass
            took.append(time.monotonic() - began)

    threads = [threading.Thread(target=one, args=(sent,)) for sent in [b"", b"P", b"POST /github HTTP/1.1\r\nHost: h\r\n"] * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(took)


def phase(gateway, name, start, seconds, baseline):
    """Runs the genuine sender for `seconds` while what `start` starts is at work."""
    descriptors = gateway.descriptors()
    attack = start()
    time.sleep(min(3, seconds / 3))  # until it is at its height
    sender = gateway.sender("github", "--rate", str(RATE), "--seconds", str(seconds))
    most_open, most_resident = 0, 0
    while sender.poll() is None:
        most_open = max(most_open, gateway.descriptors())
        most_resident = max(most_resident, gateway.resident())
        time.sleep(0.2)
    genuine = result(sender)
    said = attack.stop() if attack else ""
    began = time.monotonic()
    limit = baseline and max(50.0, 3 * baseline["p99_ms"])
    problems = []
    if genuine["ok"] != genuine["sent"]:
        problems.append(f"{genuine['sent'] - genuine['ok']} genuine requests failed: {genuine['failures']}")
    if limit and genuine["p99_ms"] > limit:
        problems.append(f"p99 {genuine['p99_ms']:.1f} ms is over {limit:.1f} ms")
    while gateway.descriptors() > descriptors + 80:  # connections to the application stay open for a while
        if time.monotonic() - began > 45:
            problems.append(f"{gateway.descriptors() - descriptors} descriptors never came back")
            break
        time.sleep(0.2)
    line = (
        f"{name:32} {genuine['ok']:6}/{genuine['sent']:<6} p50 {genuine['p50_ms']:7.2f}  p99 {genuine['p99_ms']:7.2f}"
        f"  max {genuine['max_ms']:8.2f} ms  RSS {mib(most_resident):>10}  fds {most_open:5}"
        f"  back in {time.monotonic() - began:4.1f} s  {said}"
    )
    print(line.rstrip(), flush=True)
    for problem in problems:
        print(f"    FAILED: {problem}", flush=True)
    return genuine, len(problems), most_resident


def neighbours(binaries, seconds):
    """What one source, and one destination, at their worst leave to the others."""
    failures = 0
    with application(binaries) as good, application(binaries) as other:
        sources = source("quiet", "good") + source("noisy", "other") + source("stuck", "hole")
        hole = socket.socket()
        hole.bind(("127.0.0.1", 0))
        hole.listen(1)  # takes connections and never answers
        url = f"http://127.0.0.1:{hole.getsockname()[1]}/"
        destinations = destination("good", good) + destination("other", other) + destination("hole", url, ", timeout: 60s")
        gateway = Gateway(binaries, sources, destinations)
        quiet = lambda: gateway.sender("quiet", "--rate", str(RATE), "--seconds", str(seconds))  # noqa: E731
        delivered = lambda: gateway.metric('forebay_deliveries_total{destination="good",outcome="delivered"}')  # noqa: E731
        alone = None
        for what, noise in [
            ("alone", []),
            ("beside a source at full speed", ["noisy", "--workers", "16"]),
            ("beside bodies of 1 MB", ["noisy", "--workers", "16", "--bytes", "1000000"]),
            ("beside a destination that hangs", ["stuck", "--workers", "4"]),
        ]:
            before = delivered()
            other_sender = gateway.sender(*noise, "--seconds", str(seconds)) if noise else None
            genuine = result(quiet())
            through = (delivered() - before) / seconds
            if other_sender:
                loud = result(other_sender)
            alone = alone or (genuine["a_second"], through)
            shares = genuine["a_second"] / alone[0], through / alone[1]
            print(
                f"quiet source, {what:32} taken {genuine['a_second']:6.1f}/s ({shares[0]:4.0%})  "
                f"delivered {through:6.1f}/s ({shares[1]:4.0%})  p99 {genuine['p99_ms']:7.2f} ms"
                + (f"  (the other: {loud['a_second']:.0f}/s)" if noise else ""),
                flush=True,
            )
            if genuine["ok"] != genuine["sent"] or min(shares) < 0.9:
                failures += 1
                print(f"    FAILED: less than 90 %, or not all: {genuine}")
        gateway.stop()
        hole.close()
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", default="", help="phases whose names contain this")
    args = parser.parse_args()
    raise_open_files(8192)
    failures = 0
    slow_phases = {name: (lambda gateway, name=name: SlowHttpTest(gateway, name, args.seconds + 10)) for name in SlowHttpTest.MODES}
    flood_phases = {name: (lambda gateway, make=make: H2Flood(gateway, make)) for name, make in FLOODS.items()}
    with application(args.binaries) as app:
        for title, ingress, phases in [
            ("at the defaults", "", {**slow_phases, **flood_phases}),
            ("with room for 1,000 connections, all of them taken", "limits: { connections: 1000 }", slow_phases),
        ]:
            phases = {name: start for name, start in phases.items() if args.only in name}
            gateway = Gateway(args.binaries, source("github", "app"), destination("app", app), ingress)
            print(f"== {RATE} genuine requests a second, {args.seconds} s each, {title}", flush=True)
            gateway.sender("github", "--rate", "50", "--seconds", "1").wait()  # warm
            baseline, failed, before = phase(gateway, "nothing else", lambda: None, args.seconds, None)
            failures += failed
            for name, start in phases.items():
                _, failed, most = phase(gateway, name, lambda: start(gateway), args.seconds, baseline)
                failures += failed
                if most > before + (128 << 20):
                    failures += 1
                    print(f"    FAILED: {mib(most - before)} more memory than before")
            longest = closes_in_time(gateway)
            print(f"a head that stalls is cut off after {longest:.1f} s at most")
            if longest > 12:
                failures += 1
                print("    FAILED: later than its limit of 10 s and 2 s more")
            cut = {reason: gateway.cut_off(reason) for reason in ["head", "idle", "unread", "frames", "crowded"]}
            print("cut off:", ", ".join(f"{reason} {count}" for reason, count in cut.items()))
            gateway.stop()
    if not args.only:
        print("== neighbours", flush=True)
        failures += neighbours(args.binaries, args.seconds)
    print("all of it held" if not failures else f"FAILED: {failures} of it did not hold")
    sys.exit(1 if failures else 0)


main()
