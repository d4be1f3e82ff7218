"""The gateway, an application and genuine senders, for the load scripts. Python's standard library alone."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

SECRET = "a-secret-for-this-measurement"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def raise_open_files(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"this needs {wanted} open files, and the hard limit is {hard}: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class Gateway:
    """A running gateway: its process, its addresses, what it takes."""

    def __init__(self, binaries, sources, destinations, ingress="", before_exec=None):
        self.binaries = binaries
        self.port, self.admin = free_port(), free_port()
        self.dir = tempfile.TemporaryDirectory(prefix="forebay-load-")
        config = os.path.join(self.dir.name, "forebay.yaml")
        with open(config, "w") as file:
            file.write(
                f"ingress: {{ listen: 127.0.0.1:{self.port}{', ' + ingress if ingress else ''} }}\n"
                f"admin: {{ listen: 127.0.0.1:{self.admin} }}\n"
                f"journal: {{ dir: {self.dir.name}/data, max_size: 4GiB }}\n"
                f"log: {{ level: warn }}\nsources:\n{sources}destinations:\n{destinations}"
            )
        self.log = open(os.path.join(self.dir.name, "log"), "w+")
        self.process = subprocess.Popen(
            [os.path.join(binaries, "forebay"), "serve", "-c", config],
            env={**os.environ, "SECRET": SECRET},
            stdout=self.log,
            stderr=self.log,
            preexec_fn=before_exec,
        )
        self.wait_until(lambda: self.get("/healthz") is not None, 20, "it does not start")

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(f"the gateway has ended:\n{self.log.read()}")
            return None

    def metric(self, name):
        for line in (self.get("/metrics") or "").splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def cut_off(self, reason):
        return int(self.metric(f'forebay_connections_cut_off_total{{reason="{reason}"}}'))

    def status(self, key):
        with open(f"/proc/{self.process.pid}/status") as file:
            found = re.search(rf"^{key}:\s+(\d+) kB", file.read(), re.M)
            return int(found[1]) * 1024 if found else 0  # it has ended

    def resident(self):
        return self.status("VmRSS")

    def most_resident(self):
        return self.status("VmHWM")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def wait_until(self, holds, seconds, otherwise):
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                sys.exit(f"FAILED: {otherwise}")
            time.sleep(0.05)

    def sender(self, source, *args):
        """Starts a genuine sender; `result` waits for it."""
        return subprocess.Popen(
            [os.path.join(self.binaries, "examples", "sender"), f"http://127.0.0.1:{self.port}/{source}", *args],
            env={**os.environ, "FOREBAY_SENDER_SECRET": SECRET},
            stdout=subprocess.PIPE,
            text=True,
        )

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.dir.cleanup()


def result(sender):
    out, _ = sender.communicate()
    return json.loads(out.strip().splitlines()[-1])


@contextlib.contextmanager
def application(binaries):
    port = free_port()
    app = subprocess.Popen([os.path.join(binaries, "examples", "app"), f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        app.terminate()
        app.wait()


def source(name, to, more=""):
    return f'  {name}: {{ provider: github, secret: "${{SECRET}}", to: [{to}]{more} }}\n'


def destination(name, url, more=""):
    return f"  {name}: {{ url: {url}{more} }}\n"


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"
