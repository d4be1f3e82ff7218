"""Senders and an application around a gateway that dies, and the books that are kept of what was promised.

Senders and application live in one event loop on a thread of its own, so that they go on whatever the gateway does.
"""

import asyncio
import collections
import hashlib
import hmac
import random
import threading
import time

from gateway import SECRET, Failed, wait_until

PATIENCE = 15  # seconds for one request


def number_of(key):
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def body_of(key, most):
    """What is sent under `key`: its own, and of its own size."""
    block = hashlib.sha256(key.encode()).hexdigest()
    size = 64 + number_of(key) % max(most - 64, 1)
    return f'{{"key":"{key}","block":"{block * (size // 64)}"}}'.encode()


class World:
    """The books, an application, and `senders` senders. `behave(number, attempt)` is what the application answers."""

    def __init__(self, senders=8, most=2048, behave=None, pause=0.0, seed=None):
        self.most, self.behave, self.pause = most, behave or (lambda number, attempt: 200), pause
        self.random = random.Random(seed)
        self.acknowledged = {}  # key -> the event's id
        self.delivered = set()  # ids that the application answered 2xx
        self.owner = {}  # id that arrived -> key
        self.last_attempt = {}  # delivery -> number
        self.may_forget = False  # whether a crash may forget an event that the application has answered itself: proxy mode
        self.doubtful = False  # whether an acknowledgement that comes now says nothing: its disk is being shut down
        self.repeated = 0  # attempts whose number had come before
        self.checked = 0  # acknowledged events that have been found again, and forgotten
        self.counts = collections.Counter()
        self.latencies = []  # seconds
        self.problems = []
        self.again = collections.deque()  # keys whose answer never came
        self.under_way = 0
        self.next = 0
        self.address = None
        self.senders = senders
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.in_loop(self.begin())

    def in_loop(self, task):
        return asyncio.run_coroutine_threadsafe(task, self.loop).result(60)

    async def begin(self):
        self.up = asyncio.Event()
        self.server = await asyncio.start_server(self.application, "127.0.0.1", 0, backlog=512)
        self.port = self.server.sockets[0].getsockname()[1]
        self.app_url = f"http://127.0.0.1:{self.port}/hooks"
        self.tasks = [asyncio.create_task(self.sender()) for _ in range(self.senders)]

    def send_to(self, ingress):
        """Where the senders send from now on; none lets them rest."""

        async def turn():
            self.address = ingress
            self.up.set() if ingress else self.up.clear()

        self.in_loop(turn())

    # ---- The application ----

    async def application(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                status = await self.arrived(fields, body)
                writer.write(f"HTTP/1.1 {status} noted\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def arrived(self, fields, body):
        key, event = fields.get("x-github-delivery", ""), fields.get("forebay-event-id", "")
        delivery, attempt = fields.get("forebay-delivery-id", ""), int(fields.get("forebay-attempt", 0))
        self.counts["attempts"] += 1
        if body != body_of(key, self.most):
            self.problems.append(f"wrong bytes: {event}, sent as {key}, arrived changed")
        if self.owner.setdefault(event, key) != key:
            self.problems.append(f"wrong bytes: {event} arrived as {key} and as {self.owner[event]}")
        if attempt <= self.last_attempt.get(delivery, 0):
            self.repeated += 1
        self.last_attempt[delivery] = max(attempt, self.last_attempt.get(delivery, 0))
        status = self.behave(number_of(key), attempt)
        if asyncio.iscoroutine(status):
            status = await status
        if 200 <= status < 300:
            self.delivered.add(event)
        return status

    # ---- The senders ----

    async def sender(self):
        reader = writer = None
        while True:
            await self.up.wait()
            key = self.choose()
            began = time.monotonic()
            self.under_way += 1
            try:
                if writer is None:
                    host, port = self.address.split(":")
                    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), PATIENCE)
                status, event, duplicate = await asyncio.wait_for(self.post(reader, writer, key), PATIENCE)
                self.answered(key, status, event, duplicate)
                self.latencies.append(time.monotonic() - began)
            except (OSError, AttributeError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                self.counts["without an answer"] += 1
                self.again.append(key)
                if writer is not None:
                    writer.close()
                writer = None
                await asyncio.sleep(0.005)
            finally:
                self.under_way -= 1
            if self.pause:
                await asyncio.sleep(self.pause)

    def choose(self):
        """A new webhook mostly; one whose answer never came; now and then one that was acknowledged."""
        dice = self.random.random()
        if self.again and dice < 0.5:
            return self.again.popleft()
        if self.acknowledged and dice > 0.95:
            return self.random.choice(list(self.acknowledged)[-200:])
        self.next += 1
        return f"key-{self.next}"

    async def post(self, reader, writer, key):
        body = body_of(key, self.most)
        mac = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        writer.write(
            f"POST /hooks HTTP/1.1\r\nHost: h\r\nX-GitHub-Delivery: {key}\r\nX-GitHub-Event: push\r\n"
            f"X-Hub-Signature-256: sha256={mac}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        await reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            writer.close()
        return int(head[0].split()[1]), fields.get("forebay-event-id"), "forebay-duplicate" in fields

    def answered(self, key, status, event, duplicate):
        self.counts[status] += 1
        if self.doubtful and 200 <= status < 300:
            self.counts["acknowledged in the cut itself"] += 1
            self.again.append(key)
        elif 200 <= status < 300:
            before = self.acknowledged.setdefault(key, event)
            if before != event and self.may_forget and before in self.delivered:
                self.counts["taken again after a crash"] += 1
                self.acknowledged[key] = event
            elif before != event:
                self.problems.append(f"duplicate: {key} was acknowledged as {before}, and then as {event}")
            if duplicate:
                self.counts["duplicates"] += 1
        elif status not in (410, 503):  # 410 is the application's own, in proxy mode
            self.problems.append(f"answer: {key} was answered {status}")

    def one(self, key, ingress, seconds=PATIENCE):
        """Sends one webhook, from here: its status, or none."""

        async def send():
            host, port = ingress.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return await self.post(reader, writer, key)
            finally:
                writer.close()

        try:
            status, event, duplicate = self.in_loop(asyncio.wait_for(send(), seconds))
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            return None
        self.answered(key, status, event, duplicate)
        return status

    # ---- The books ----

    def lost(self, gateway):
        """Acknowledged events that are neither delivered nor dead, as far as can be told now."""
        open_events = {event for event in self.acknowledged.values() if event not in self.delivered}
        dead = gateway.events("dead") if open_events else set()
        if dead is None:
            return open_events
        self.counts["dead letters"] = max(self.counts["dead letters"], len(dead))
        return open_events - dead

    def settle(self, gateway, seconds=60, keeps_numbers=True):
        """Waits until everything that was acknowledged is delivered or dead, and strikes it off. Raises what is broken."""
        until = time.monotonic() + seconds
        while (lost := self.lost(gateway)) and time.monotonic() < until:
            time.sleep(0.02)
        if lost:
            keys = {event: key for key, event in self.acknowledged.items()}
            raise Failed(f"{len(lost)} LOST: {[(event, keys[event]) for event in sorted(lost)][:10]}")
        if self.problems:
            raise Failed(f"{len(self.problems)} problems: {self.problems[:10]}")
        if keeps_numbers and self.repeated:
            raise Failed(f"{self.repeated} attempts had a number that had come before")
        taken = {key: event for key, event in self.acknowledged.items()}
        for event, key in self.owner.items():
            if key in taken and taken[key] != event and not self.may_forget:
                raise Failed(f"duplicate: {key} was acknowledged as {taken[key]} and arrived as {event}, too")
            if not key.startswith(("key-", "one-")):
                raise Failed(f"invented: {event} arrived, and nobody sent it")
        self.checked += len(self.acknowledged)
        self.acknowledged.clear()

    def still_known(self, gateway, count=20):
        """Sends again what was acknowledged: it has to be known, under the same id."""
        keys = [] if self.may_forget else list(self.acknowledged)
        for key in self.random.sample(keys, min(count, len(keys))):
            before = self.counts["duplicates"]
            if self.one(key, gateway.ingress) != 200 or self.counts["duplicates"] != before + 1:
                raise Failed(f"duplicate: {key} is not known any more")

    def load(self, acknowledgements, gateway, seconds=30):
        """Lets the senders send until so many more are acknowledged, or the gateway has ended."""
        goal = self.counts[200] + acknowledgements
        self.send_to(gateway.ingress)
        wait_until(lambda: self.counts[200] >= goal or not gateway.lives(), seconds, "too few were acknowledged")

    def rest(self):
        """Lets the senders rest, and waits until nothing is under way."""
        self.send_to(None)
        wait_until(lambda: self.under_way == 0, 2 * PATIENCE, "requests never ended")

    def summary(self):
        counts = self.counts
        return (
            f"{self.checked + len(self.acknowledged)} acknowledged, {counts['duplicates']} duplicates, {counts[503]} refused, "
            f"{counts['without an answer']} without an answer, {counts['attempts']} attempts, {counts['dead letters']} dead letters, "
            f"0 lost, 0 wrong"
        )


def flaky(number, attempt):
    """An application as they are: one webhook in sixteen is never taken, one in seven not at first."""
    if number % 16 == 0:
        return 410
    return 503 if number % 7 == 0 and attempt < 3 else 200
