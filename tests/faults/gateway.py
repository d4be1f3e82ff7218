"""The built binary as a process of its own: started, watched, stopped and killed. Python's standard library alone."""

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

SECRET = "a secret of these scripts alone"
# write, fsync, fdatasync by their numbers, for the two machines that there are.
COMMIT_CALLS = {"x86_64": {1, 74, 75}, "aarch64": {64, 82, 83}}[os.uname().machine]


class Failed(Exception):
    """A promise is broken, or the fault was never met."""


class Ended(Exception):
    """The gateway ended before it was ready; `code` as Popen gives it."""

    def __init__(self, code, log):
        super().__init__(f"the gateway ended with {code} before it was ready:\n{log}")
        self.code, self.log = code, log


def wait_until(holds, seconds, otherwise):
    until = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > until:
            raise Failed(otherwise() if callable(otherwise) else otherwise)
        time.sleep(0.005)


STARTED = []  # every gateway there is, so that none outlives its script


class Gateway:
    """One gateway over its restarts: the same directory `home`, its journal in `data`, free ports each time."""

    def __init__(self, binary, home, app_url, data=None, max_size="64MiB", concurrency=32, source=""):
        self.binary, self.home = binary, pathlib.Path(home)
        self.data = pathlib.Path(data or self.home / "data")
        self.config = self.home / "forebay.yaml"
        self.config.write_text(
            "ingress: { listen: 127.0.0.1:0 }\nadmin: { listen: 127.0.0.1:0 }\n"
            f"journal: {{ dir: {self.data}, max_size: {max_size} }}\nlog: {{ format: json }}\n"
            f'sources:\n  hooks: {{ provider: github, secret: "{SECRET}", to: [app]{source} }}\n'
            f"destinations:\n  app: {{ url: {app_url}, concurrency: {concurrency}, timeout: 5s, "
            "retry: { initial: 20ms, max: 100ms }, breaker: { failures: 5, cooldown: 50ms } }\n"
        )
        self.process, self.ingress, self.admin = None, None, None
        STARTED.append(self)

    def spawn(self, prefix=(), before_exec=None):
        """Starts it, behind the command `prefix`, which has to leave it its process: `strace -D` does."""
        self.log_path = self.home / "log"
        log = open(self.log_path, "wb")
        command = [*prefix, self.binary, "serve", "--no-watch", "-c", str(self.config)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before_exec, start_new_session=True
        )
        log.close()

    def start(self, prefix=(), seconds=60, before_exec=None):
        """Starts it and waits until it is ready. `Ended` if it ends instead."""
        self.spawn(prefix, before_exec)
        wait_until(self.look, seconds, lambda: f"it was not ready after {seconds} s:\n{self.log()}")

    def look(self):
        """Whether it is ready, as far as it has said."""
        for line in self.log().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            said = said.get("fields", said)
            if said.get("message") == "ready":
                self.ingress, self.admin = said["ingress"], said["admin"]
                return True
        code = self.process.poll()
        if code is not None:
            raise Ended(code, self.log())
        return False

    def log(self):
        return self.log_path.read_text(errors="replace")

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, seconds=40):
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def is_in_a_commit(self):
        """Whether the thread that writes the journal is in a write or a flush. It should be stopped when this is asked."""
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == "journal-write":
                number = (task / "syscall").read_text().split()[0]
                return number.isdigit() and int(number) in COMMIT_CALLS
        return False

    def get(self, path, seconds=10):
        """The status and the text that the private side answers; none while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=seconds) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None, ""

    def metric(self, name):
        _, text = self.get("/metrics")
        for line in text.splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def events(self, status):
        """The ids of all events that stand like this; none where the index cannot say yet."""
        ids, page = set(), ""
        while True:
            code, text = self.get(f"/api/v1/events?status={status}&limit=500{page}")
            if code != 200:
                return None
            answer = json.loads(text)
            ids.update(item["id"] for item in answer["items"])
            if not answer["next"]:
                return ids
            page = f"&cursor={answer['next']}"


def kill_where_it_stands(gateway):
    """Stops it, looks whether it is inside a commit, and kills it."""
    gateway.signal(signal.SIGSTOP)
    inside = gateway.is_in_a_commit()
    gateway.kill()
    return inside
