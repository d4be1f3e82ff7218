"""kill -9 at chosen moments: at each system call that changes the disk, while the journal is read back, in the drain, and
around an attempt. Needs strace."""

import asyncio
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

from gateway import Ended, Failed, Gateway, kill_where_it_stands, wait_until
from world import World, flaky

# Everything by which the journal and its index change the disk. The kernel skips the call at whose entry the process is
# killed, so the Nth of one kind stands for every moment between the call before it and itself.
CALLS = ["write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "openat", "mkdir", "ftruncate"]


def strace(inject, *more):
    """The command that runs another under strace, which leaves it its process."""
    call = inject.split(":")[0]
    return ["strace", "-D", "-f", "-qqq", "-o", "/dev/null", *more, "-e", f"trace={call}", "-e", f"inject={inject}"]


def at_random(binary, home, runs, mode="store"):
    """Kills it under load, every other time wherever it is and else inside a commit."""
    chance = random.Random(runs)
    refuses = {"store": flaky, "proxy": proxied}[mode]
    source = ", mode: proxy, deadline: 2s" if mode == "proxy" else ""
    world = World(behave=refuses, most=2048)
    world.may_forget = mode == "proxy"  # docs/proxy.md: what was relayed is recorded behind the answer, within 100 ms
    gateway = Gateway(binary, home, world.app_url, source=source, max_size="16MiB")
    began, inside, cut_off = time.monotonic(), 0, 0
    for number in range(runs):
        gateway.start()
        world.load(chance.randrange(1, 60), gateway)
        for _ in range(1 if number % 2 else 300):
            gateway.signal(signal.SIGSTOP)
            found = gateway.is_in_a_commit()
            if found:
                break
            gateway.signal(signal.SIGCONT)
        inside += found
        cut_off += world.under_way > 0
        gateway.kill()
        world.send_to(None)
        if number % 100 == 99 or number == runs - 1:
            gateway.start()
            world.rest()
            world.still_known(gateway)
            world.settle(gateway)
            gateway.kill()
            print(f"  {number + 1} of {runs} kills: {cut_off} with a request under way, {inside} inside a commit; {world.counts['taken again after a crash']} taken again; {world.summary()}; {time.monotonic() - began:.0f} s", flush=True)
    if inside * 5 < runs or cut_off * 2 < runs:
        raise Failed(f"reach: {inside} inside a commit, {cut_off} with a request under way, of {runs}")


def proxied(number, attempt):
    """What it refuses at first is acknowledged by the gateway, and taken later; or never."""
    if number % 7 == 0:
        return 503 if attempt < 2 else 410 if number % 14 == 0 else 200
    return 200


def at_each_call(binary, home, runs):
    """Kills it at the Nth of each call, N from 1 to `runs`, on a journal so small that it copies and trims all the time."""
    # Few dead letters: they would fill so small a journal, and nothing would be trimmed any more.
    world = World(behave=lambda number, attempt: 410 if number % 256 == 0 else flaky(number | 1, attempt), most=24 << 10)
    gateway = Gateway(binary, home, world.app_url, max_size="4MiB")
    began, killed, in_opening, quiet = time.monotonic(), {}, 0, []
    for call in CALLS:
        killed[call] = 0
        for number in range(1, runs + 1):
            try:
                gateway.start(strace(f"{call}:signal=SIGKILL:when={number}"))
                world.send_to(gateway.ingress)
                until = time.monotonic() + 6
                while gateway.lives() and time.monotonic() < until:
                    time.sleep(0.005)
            except Ended as ended:
                if ended.code != -signal.SIGKILL:
                    raise Failed(f"opening failed after a kill at {call} {number - 1}: {ended}")
                in_opening += 1
            world.send_to(None)
            died = not gateway.lives()
            gateway.kill()
            killed[call] += died
            if not died:
                quiet.append(f"{call} {number}")
                break  # it does not come to so many of them
        gateway.start()
        world.rest()
        world.settle(gateway, seconds=120)
        gateway.kill()
        print(f"  {call}: {killed[call]} kills, {time.monotonic() - began:.0f} s", flush=True)
    total = sum(killed.values())
    segments = sorted(path.name for path in (gateway.data / "log").glob("*.log"))
    runs_of_claims = len(list((gateway.data / "claims").glob("*")))
    print(f"{total} kills at the Nth call ({', '.join(f'{count} at {call}' for call, count in killed.items())}), {in_opening} of them while opening; "
          f"oldest segment {segments[0]}, {runs_of_claims} files of claims; {world.summary()}; {time.monotonic() - began:.0f} s")
    if any(killed[call] == 0 for call in ("write", "fdatasync", "fsync", "rename", "unlink", "openat")) or segments[0] == "00000001.log":
        raise Failed(f"reach: {killed}, oldest segment {segments[0]}")


def while_written(binary, home, runs):
    """Kills it `runs` times each while a checkpoint is written, while claims are sealed, and while they are merged: where the
    file that is to take an old one's place is there, half written or whole."""
    world = World(behave=lambda number, attempt: 410 if number % 256 == 0 else flaky(number | 1, attempt), most=24 << 10)
    gateway = Gateway(binary, home, world.app_url, max_size="8MiB")  # claims of small events would fill a smaller one
    began, met = time.monotonic(), {}

    def stopped_while(what):
        """Whether such a file is there; then it is stopped."""
        if not being_written(gateway.data, what):
            return False
        gateway.signal(signal.SIGSTOP)
        if being_written(gateway.data, what):
            return True
        gateway.signal(signal.SIGCONT)
        return False

    for what in ("checkpoint", "sealed", "merged"):
        for number in range(runs):
            gateway.start()
            world.send_to(gateway.ingress)
            until = time.monotonic() + 60
            while not stopped_while(what):
                if time.monotonic() > until or not gateway.lives():
                    raise Failed(f"it is never caught with its {what} file under way:\n{gateway.log()[-1000:]}")
            met[what] = met.get(what, 0) + 1
            gateway.kill()
            world.send_to(None)
            if number % 10 == 9 or number == runs - 1:
                gateway.start()
                world.rest()
                world.still_known(gateway)
                world.settle(gateway)
                gateway.kill()
    said = ", ".join(f"{count} with a {what} file under way" for what, count in met.items())
    print(f"kills while something is written in the background: {said}; {world.summary()}; {time.monotonic() - began:.0f} s")


def being_written(data, what):
    """Whether the journal in `data` writes its checkpoint, or a run of claims: of one seal, or `merged` of several."""
    if what == "checkpoint":
        return (data / "checkpoint.new").exists()
    names = [name.split(".")[0].split("-") for name in os.listdir(data / "claims") if name.endswith(".clm.new")]
    return any((first == last) == (what == "sealed") for first, last in names)


def in_opening(binary, home, runs):
    """Kills it again and again while it reads the journal back, and opens it once at the end."""
    chance = random.Random(runs)
    world = World(behave=lambda number, attempt: 410 if number % 16 == 0 else 503 if number % 5 == 0 else 200, most=1024)
    gateway = Gateway(binary, home, world.app_url)
    gateway.start()
    world.load(min(40 * runs, 4000), gateway, seconds=120)
    world.rest()
    gateway.kill()
    began = time.monotonic()
    gateway.start()
    took = time.monotonic() - began
    gateway.kill()
    met, early, window = 0, 0, took / 3
    for _ in range(runs):
        gateway.spawn()
        wait_until(lambda: opens(gateway), 20, "it never opened its log")
        met += 1
        opened = time.monotonic()
        after = chance.random() * window
        while time.monotonic() - opened < after and gateway.lives():
            time.sleep(0.001)
        if not gateway.lives():
            raise Failed(f"it did not survive its opening: {gateway.log()}")
        ready = gateway.look()
        gateway.kill()
        early += not ready
        window *= 0.8 if ready else 1.1  # about as long as opening takes, whatever else the machine does
    world.behave = flaky
    gateway.start()
    world.still_known(gateway)
    world.settle(gateway, seconds=120)
    gateway.kill()
    print(f"{runs} kills while opening: {early} before it was ready, {met} with the journal's files open, opening takes {took * 1000:.0f} ms; {world.summary()}")
    if early * 2 < runs and runs >= 20 or early == 0:
        raise Failed(f"reach: only {early} of {runs} kills came before it was ready")


def opens(gateway):
    """Whether it holds the journal: its lock is the first file that it opens there."""
    try:
        links = [entry.readlink() for entry in pathlib.Path(f"/proc/{gateway.process.pid}/fd").iterdir()]
    except OSError:
        return False
    return any(gateway.data in link.parents for link in links)


def in_the_drain(binary, home, runs):
    """SIGTERM under load; then killed at the Nth write or flush of its drain, or by a second SIGTERM, or at any time."""
    chance = random.Random(runs)
    world = World(behave=flaky, most=2048)
    gateway = Gateway(binary, home, world.app_url)
    began = time.monotonic()
    codes = {}
    for number in range(runs):
        gateway.start()
        world.load(chance.randrange(5, 60), gateway)
        how = ["at a call", "second SIGTERM", "at any time"][number % 3]
        if how == "at a call":
            call = ["write", "fdatasync", "fsync", "unlink"][number // 3 % 4]
            when = 1 + number // 12 % 5
            tracer = subprocess.Popen(
                ["strace", "-f", "-o", "/dev/null", "-p", str(gateway.process.pid), "-e", f"trace={call}",
                 "-e", f"inject={call}:signal=SIGKILL:when={when}"],
                stderr=subprocess.PIPE, text=True,
            )
            while "attached" not in tracer.stderr.readline():
                if tracer.poll() is not None:
                    raise Failed("strace does not attach")
            gateway.process.terminate()
            code = gateway.process.wait(60)
            tracer.wait(10)
            tracer.stderr.close()
        elif how == "second SIGTERM":
            gateway.process.terminate()
            time.sleep(chance.random() * 0.02)
            gateway.process.terminate()
            code = gateway.process.wait(60)
        else:
            gateway.process.terminate()
            time.sleep(chance.random() * 0.05)
            gateway.kill()
            code = gateway.process.returncode
        world.send_to(None)
        codes[(how, code)] = codes.get((how, code), 0) + 1
        if code not in (0, -signal.SIGKILL):
            raise Failed(f"{how}: it ended with {code}: {gateway.log()[-800:]}")
    gateway.start()
    world.rest()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    said = ", ".join(f"{how}: {count} ended with {code}" for (how, code), count in sorted(codes.items()))
    print(f"{runs} drains cut off: {said}; {world.summary()}; {time.monotonic() - began:.0f} s")
    if not codes.get(("at a call", -signal.SIGKILL)) or not codes.get(("second SIGTERM", 0)):
        raise Failed(f"reach: {codes}")


def around_an_attempt(binary, home, runs):
    """Killed once the application has the request and before it answers (P6), and once it has answered (P7)."""
    state = {"hold": False, "held": 0}

    async def behave(number, attempt):
        if state["hold"]:
            state["held"] += 1
            state["seen"].set()
            if state["mode"] == "before":
                await asyncio.sleep(3600)
        return 200

    world = World(behave=behave, senders=1, most=1024)
    world.pause = 0.01
    gateway = Gateway(binary, home, world.app_url)
    ambiguous, began = 0, time.monotonic()
    for number in range(runs):
        gateway.start()
        world.load(3, gateway)
        state["seen"], state["mode"], state["held"] = threading.Event(), ("before", "after")[number % 2], 0
        state["hold"] = True
        if not state["seen"].wait(20):
            raise Failed("no attempt was ever under way")
        kill_where_it_stands(gateway)
        world.send_to(None)
        state["hold"] = False
        ambiguous += state["held"]
    gateway.start()
    world.rest()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    attempts, events = world.counts["attempts"], len(world.owner)
    print(f"{runs} kills around an attempt: {ambiguous} attempts without a known end, {attempts - events} attempts more than events; {world.summary()}; {time.monotonic() - began:.0f} s")
    # Each attempt that was under way at a kill may be made again, and one whose outcome was not written yet.
    if attempts - events > ambiguous + 2 * runs or attempts <= events:
        raise Failed(f"{attempts} attempts for {events} events, {ambiguous} of them without a known end")
