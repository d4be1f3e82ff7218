"""What may be found in the directory of a journal: a lock without its process, somebody else's segments, old ones, a broken index."""

import pathlib
import shutil
import subprocess
import time

from gateway import Ended, Failed, Gateway, wait_until
from world import World, flaky


def run(binary, home, runs):
    """Each of the cases, `runs` times."""
    began = time.monotonic()
    for number in range(runs):
        for case in (two_processes, foreign_segment, old_segment, index_lost, drained_to_nothing, empty_files):
            below = pathlib.Path(home, f"{case.__name__}-{number}")
            below.mkdir()
            said = case(binary, below, number)
            if number == runs - 1:
                print(f"  {case.__name__.replace('_', ' ')}: {said}", flush=True)
            shutil.rmtree(below)
    print(f"{runs} times each of these cases; {time.monotonic() - began:.0f} s")


def filled(binary, home, count=60, **more):
    world = World(behave=flaky, most=4096, **more)
    gateway = Gateway(binary, home, world.app_url)
    gateway.start()
    world.load(count, gateway)
    world.rest()
    return world, gateway


def close(world, gateway):
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()


def two_processes(binary, home, _):
    """P43: a second process exits with 3 and changes nothing; what a killed one left is no obstacle."""
    world, gateway = filled(binary, home)
    for _ in range(5):
        second = subprocess.run([binary, "serve", "-c", str(gateway.config)], capture_output=True, text=True, timeout=30)
        if second.returncode != 3 or str(gateway.process.pid) not in second.stderr:
            raise Failed(f"a second process ended with {second.returncode}: {second.stderr}")
    world.load(10, gateway)
    world.rest()
    gateway.kill()
    if not (gateway.data / "lock").read_text().strip():
        raise Failed("there is no lock left behind by kill -9, so this shows nothing")
    gateway.start()
    close(world, gateway)
    return f"exit code 3, the holder named; the lock of a killed process is no obstacle; {world.summary()}"


def foreign_segment(binary, home, _):
    """P14: a segment of another store is refused by name, and nothing of it is replayed."""
    world, gateway = filled(binary, home)
    gateway.kill()
    other_home = home / "other"
    other_home.mkdir()
    other_world, other = filled(binary, other_home)
    other.kill()
    segments = sorted((gateway.data / "log").glob("*.log"))
    after = gateway.data / "log" / f"{int(segments[-1].stem, 16) + 1:08x}.log"
    for place in (after, segments[0]):
        kept = place.read_bytes() if place.exists() else None
        shutil.copy(sorted((other.data / "log").glob("*.log"))[0], place)
        before = {path: path.read_bytes() for path in (gateway.data / "log").glob("*.log")}
        try:
            gateway.start()
            raise Failed("it opens with a segment of another store")
        except Ended as ended:
            if ended.code != 1 or place.name not in ended.log or "another journal" not in ended.log:
                raise
        if before != {path: path.read_bytes() for path in (gateway.data / "log").glob("*.log")}:
            raise Failed("it refused, and changed the log all the same")
        place.unlink() if kept is None else place.write_bytes(kept)
    gateway.start()
    close(world, gateway)
    other.start()
    close(other_world, other)
    return f"refused by name, exit code 1, nothing changed, whole again once it is gone; {world.summary()}"


def old_segment(binary, home, _):
    """P14: a segment that was let go of is copied back: it is removed, and nothing is delivered again."""
    world = World(behave=flaky, most=32 << 10)
    gateway = Gateway(binary, home, world.app_url, max_size="4MiB")
    gateway.start()
    world.load(10, gateway)
    kept = home / "00000001.log"
    shutil.copy(gateway.data / "log" / "00000001.log", kept)
    while (gateway.data / "log" / "00000001.log").exists():
        world.load(50, gateway)
    world.rest()
    world.settle(gateway)
    gateway.kill()
    attempts = world.counts["attempts"]
    shutil.copy(kept, gateway.data / "log" / "00000001.log")
    gateway.start()
    if (gateway.data / "log" / "00000001.log").exists() or "has come back" not in gateway.log():
        raise Failed("a segment that was let go of is taken again")
    world.load(20, gateway)
    world.rest()
    close(world, gateway)
    if world.repeated or world.counts["attempts"] > attempts + 200:
        raise Failed("something old was delivered again")
    return f"removed, and logged; {world.summary()}"


def index_lost(binary, home, number):
    """P13: the index is deleted, damaged or old: it is built again, and says as much as before."""
    world, gateway = filled(binary, home)
    world.settle(gateway)
    index = gateway.data / "index"
    old = home / "old-index"
    gateway.stop()
    shutil.copytree(index, old)
    gateway.start()
    world.load(60, gateway)
    world.rest()
    world.settle(gateway)
    listed = wait_for_all(gateway, 0)
    gateway.stop()
    database = max(index.glob("*"), key=lambda path: path.stat().st_size)
    how = []
    for what in ("deleted", "flipped", "cut", "zeros", "empty", "old"):
        if what == "deleted":
            shutil.rmtree(index)
        elif what == "old":
            shutil.rmtree(index)
            shutil.copytree(old, index)
        else:
            for extra in index.glob("*-*"):
                extra.unlink()
            content = bytearray(database.read_bytes())
            if what == "flipped":
                for at in range(number * 7 % 50, len(content), 997):
                    content[at] ^= 0x55
            elif what == "cut":
                del content[len(content) // 2 :]
            elif what == "zeros":
                content[4096:] = bytes(len(content) - 4096)
            else:
                content = b""
            database.write_bytes(content)
        gateway.start()
        again = wait_for_all(gateway, len(listed))
        if again != listed:
            raise Failed(f"index {what}: {len(again)} events, and there were {len(listed)}")
        gateway.stop()
        how.append(what)
    return f"{', '.join(how)}: built again each time with all of {len(listed)} events"


def wait_for_all(gateway, least):
    """All ids that the API lists, once it lists so many or has had its time."""
    until = time.monotonic() + 20
    while True:
        ids = set()
        for status in ("delivered", "dead", "pending"):
            ids |= gateway.events(status) or set()
        if (least and len(ids) >= least) or time.monotonic() > until:
            return ids
        if not least:
            time.sleep(0.5)
            return set().union(*((gateway.events(status) or set()) for status in ("delivered", "dead", "pending")))
        time.sleep(0.02)


def drained_to_nothing(binary, home, _):
    """P58: everything delivered, started again, filled again: no gauge is below zero or near 2^64."""
    world = World(most=1024)
    gateway = Gateway(binary, home, world.app_url)
    for _ in range(4):
        gateway.start()
        world.load(30, gateway)
        world.rest()
        world.settle(gateway)
        for text in gateway.get("/metrics")[1].splitlines():
            if not text.startswith("#") and not 0 <= float(text.split(" # ")[0].rsplit(" ", 1)[1]) < 1 << 62:
                raise Failed(f"a metric is out of its senses: {text}")
        for name in ("pending_deliveries", "oldest_pending_seconds", "dead_letters"):
            gauge = f'forebay_{name}{{destination="app"}}'
            wait_until(lambda: gateway.metric(gauge) == 0, 10, lambda: f"{name} is {gateway.metric(gauge)} although nothing waits")
        gateway.kill()
    return f"gauges are 0 after each of 4 drains; {world.summary()}"


def empty_files(binary, home, _):
    """P58: files of no bytes, where a crash may leave them."""
    world, gateway = filled(binary, home)
    gateway.kill()
    last = max(int(path.stem, 16) for path in (gateway.data / "log").glob("*.log"))
    (gateway.data / "log" / f"{last + 1:08x}.log").touch()
    (gateway.data / "journal.time").write_bytes(b"")
    (gateway.data / "lock").write_bytes(b"")
    (gateway.data / "journal.meta.new").touch()
    gateway.start()
    close(world, gateway)
    return f"an empty last segment, journal.time, lock and journal.meta.new are no obstacle; {world.summary()}"
