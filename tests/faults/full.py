"""A disk without space, without inodes, read-only, and a process without descriptors. Root, for the mounts."""

import collections
import os
import pathlib
import resource
import socket
import subprocess
import time

from gateway import Ended, Failed, Gateway, wait_until
from world import World, flaky


class Mount:
    """A small file system of its own."""

    def __init__(self, home, *what):
        self.at = pathlib.Path(home, "disk")
        self.at.mkdir()
        subprocess.run(["mount", *what, str(self.at)], check=True)

    def free(self):
        facts = os.statvfs(self.at)
        return facts.f_bavail * facts.f_frsize

    def resize(self, mebibytes):
        """A tmpfs alone."""
        subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", str(self.at)], check=True)

    def gone(self):
        wait_until(lambda: subprocess.run(["umount", str(self.at)], stderr=subprocess.DEVNULL).returncode == 0, 30, "it stays mounted")


def fill(path, leave, mount):
    """All but `leave` bytes."""
    try:
        with open(path, "ab", buffering=0) as file:
            while mount.free() > leave:
                file.write(b"x" * 4096)
    except OSError:
        pass


def space(binary, home, runs):
    """`runs` times a tmpfs of 10 MiB is filled, from outside to all but 256 KiB, to the last byte, and by events that wait, and
    freed again. Delivery goes on, but for a disk that has not one byte left: then it may wait, too. Where it is stuck all the
    same, it is given 2 MiB more, so that the rounds after it are met; that fails in the end."""
    mount = Mount(home, "-t", "tmpfs", "-o", "size=10m,mode=700", "tmpfs")
    away = {"app": False}
    world = World(behave=lambda number, attempt: 503 if away["app"] else flaky(number, attempt), most=8192)
    gateway = Gateway(binary, home, world.app_url, data=mount.at / "data", max_size="1GiB")
    filler = mount.at / "filler"
    began, times, delivered_while_full, dead_while_full, by = time.monotonic(), [], 0, 0, collections.Counter()
    try:
        gateway.start()
        for number in range(runs):
            who = ("outside", "events", "last byte")[number % 3]
            goal = world.counts[503] + 20
            if who == "events":
                away["app"] = True
                world.send_to(gateway.ingress)
            else:
                world.load(5, gateway)

            def refused():  # history gives way first, and its place is filled, too
                if who != "events":
                    fill(filler, 0 if who == "last byte" else 256 << 10, mount)
                return world.counts[503] >= goal

            wait_until(refused, 60, lambda: f"never full: {world.counts}, {mount.free()} free")
            by[who] += 1
            wait_until(lambda: gateway.get("/readyz")[0] == 503, 10, "it is ready although it is full")
            if gateway.get("/healthz")[0] != 200:
                raise Failed("/healthz fails")
            world.rest()
            # What waits is delivered, and dies, while nothing new is taken. The index may lag for want of space, so the gauges say it.
            before = world.counts["attempts"]
            away["app"] = False
            try:
                pending = 'forebay_pending_deliveries{destination="app"}'
                wait_until(lambda: gateway.metric(pending) == 0, 10, "delivery does not go on")
            except Failed:
                by[f"{who}, and delivery waited"] += 1
                print(f"  round {number}, filled by {who}: {gateway.metric(pending):.0f} wait, {mount.free()} free, "
                      f"{gateway.metric('forebay_journal_bytes'):.0f} in the journal, reserve {(gateway.data / 'reserve').exists()}", flush=True)
            dead_while_full += gateway.metric('forebay_dead_letters{destination="app"}') > 0
            delivered_while_full += world.counts["attempts"] - before
            taken = world.counts[200]
            freed = time.monotonic()
            filler.unlink(missing_ok=True)
            world.send_to(gateway.ingress)
            try:
                wait_until(lambda: world.counts[200] > taken, 10, "it never took events again")
                times.append(time.monotonic() - freed)
            except Failed:
                by["stuck until there was more room"] += 1
                print(f"  round {number}, filled by {who}: takes nothing; {gateway.metric(pending):.0f} wait, {mount.free()} free, "
                      f"{gateway.metric('forebay_journal_bytes'):.0f} in the journal; {gateway.get('/readyz')[1]}", flush=True)
                mount.resize(12)
                wait_until(lambda: world.counts[200] > taken, 30, "not even then")
                world.rest()
                world.settle(gateway)
                mount.resize(10)
                world.send_to(gateway.ingress)
            if times and times[-1] > 3:
                print(f"  round {number}, filled by {who}: it resumed after {times[-1]:.1f} s", flush=True)
            if number % 10 == 9:
                world.rest()
                world.settle(gateway)
            if not gateway.lives():
                raise Failed(gateway.log()[-1000:])
        world.rest()
        failed = gateway.log().count("has failed")
        gateway.kill()
        gateway.start()
        world.still_known(gateway)
        world.settle(gateway)
        gateway.kill()
    finally:
        world.send_to(None)
        gateway.kill()
        mount.gone()
    print(f"{runs} times full ({', '.join(f'{count} {who}' for who, count in by.items())}): resumed after {max(times):.2f} s at most, {sum(times) / len(times):.2f} s in the mean, without a restart; "
          f"{delivered_while_full} attempts while full, dead letters there {dead_while_full} times; the journal failed {failed} times; {world.summary()}; {time.monotonic() - began:.0f} s")
    stuck = {what: count for what, count in by.items() if "waited" in what and "last byte" not in what or "stuck" in what}
    if max(times) > 5 or failed or stuck:
        raise Failed(f"it resumed after {max(times):.1f} s; it failed {failed} times; {stuck}")


def outage(binary, home, runs):
    """`runs` times events fill a tmpfs of 10 MiB, something else all but 16 KiB of what they leave, and the application stays away until
    what is written of attempts that fail has taken those and the reserve. Once it is back, everything is delivered. About a minute each."""
    began = time.monotonic()
    for number in range(runs):
        below = pathlib.Path(home, f"outage-{number}")
        below.mkdir()
        mount = Mount(below, "-t", "tmpfs", "-o", "size=10m,mode=700", "tmpfs")
        away = {"app": True}
        world = World(behave=lambda number, attempt: 503 if away["app"] else 200, most=8192)
        gateway = Gateway(binary, below, world.app_url, data=mount.at / "data", max_size="1GiB")
        pending = 'forebay_pending_deliveries{destination="app"}'
        try:
            gateway.start()
            world.send_to(gateway.ingress)
            wait_until(lambda: world.counts[503] > 50, 60, "it is never full")
            world.rest()
            fill(mount.at / "filler", 16 << 10, mount)
            attempts = world.counts["attempts"]
            wait_until(lambda: mount.free() == 0 or "delivery pauses" in gateway.log(), 180, lambda: f"{mount.free()} bytes stay free")
            waited, attempts = gateway.metric(pending), world.counts["attempts"] - attempts
            away["app"] = False
            wait_until(lambda: gateway.metric(pending) == 0, 30,
                       lambda: f"{gateway.metric(pending):.0f} of {waited:.0f} still wait 30 s after the application came back; {mount.free()} bytes are free, {gateway.metric('forebay_journal_bytes'):.0f} in the journal; {gateway.get('/readyz')[1]}")
            (mount.at / "filler").unlink()
            taken = world.counts[200]
            world.send_to(gateway.ingress)
            wait_until(lambda: world.counts[200] > taken, 30, "it never took events again")
            world.rest()
            world.settle(gateway)
        finally:
            world.send_to(None)
            gateway.kill()
            mount.gone()
        print(f"  {number + 1} of {runs}: {attempts} attempts while full, {waited:.0f} waited; {world.summary()}; {time.monotonic() - began:.0f} s", flush=True)


def inodes(binary, home, runs):
    """No more files can be made: 503 where it needs one, and on again once there are some."""
    image = pathlib.Path(home, "image")
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "128", str(image)], check=True)
    mount = Mount(home, "-t", "ext4", "-o", "loop", str(image))
    world = World(behave=flaky, most=16 << 10)
    gateway = Gateway(binary, home, world.app_url, data=mount.at / "data", max_size="8MiB")
    began = time.monotonic()
    try:
        for _ in range(runs):
            gateway.start()
            world.load(5, gateway)
            made = []
            try:
                while True:
                    made.append(mount.at / f"taken-{len(made)}")
                    made[-1].touch()
            except OSError:
                pass
            refused = world.counts[503]
            wait_until(lambda: world.counts[503] > refused + 10, 60, "it never needed a file")
            failed = "has failed" in gateway.log()
            for path in made:
                path.unlink(missing_ok=True)
            if failed:
                world.rest()
                gateway.kill()
                gateway.start()
            taken = world.counts[200]
            world.send_to(gateway.ingress)
            wait_until(lambda: world.counts[200] > taken, 30, "it never took events again")
            world.rest()
            world.still_known(gateway)
            world.settle(gateway)
            gateway.kill()
    finally:
        world.send_to(None)
        gateway.kill()
        mount.gone()
    print(f"{runs} times no inodes: {'a restart was needed' if failed else 'went on by itself'}; {world.summary()}; {time.monotonic() - began:.0f} s")


def read_only(binary, home, runs):
    """The file system is remounted read-only under load, and writable again."""
    image = pathlib.Path(home, "image")
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mount = Mount(home, "-t", "ext4", "-o", "loop", str(image))
    world = World(behave=flaky, most=2048)
    gateway = Gateway(binary, home, world.app_url, data=mount.at / "data")
    began, needed = time.monotonic(), 0
    try:
        for _ in range(runs):
            gateway.start()
            world.load(10, gateway)
            # As the kernel does it on an error: at once, though files are open for writing.
            subprocess.run(["mount", "-o", "remount,abort", str(mount.at)], check=False, stderr=subprocess.DEVNULL)
            world.doubtful = True
            wait_until(lambda: "has failed" in gateway.log(), 30, "it never saw that it cannot write")
            world.rest()
            world.doubtful = False
            if gateway.get("/readyz")[0] != 503 or gateway.get("/healthz")[0] != 200:
                raise Failed("it is not unready and alive")
            gateway.kill()
            mount.gone()
            subprocess.run(["mount", "-t", "ext4", "-o", "loop", str(image), str(mount.at)], check=True)
            subprocess.run(["mount", "-o", "remount,ro", str(mount.at)], check=True)
            try:
                gateway.start()
                raise Failed("it starts on a disk that cannot be written")
            except Ended as ended:
                needed += ended.code == 1 and "Read-only" in ended.log
            subprocess.run(["mount", "-o", "remount,rw", str(mount.at)], check=True)
        gateway.start()
        world.still_known(gateway)
        world.settle(gateway, keeps_numbers=False)
        gateway.kill()
    finally:
        world.send_to(None)
        gateway.kill()
        mount.gone()
    print(f"{runs} times read-only under load: each time 503 and unready, {needed} starts on it refused with the reason; {world.summary()}; {time.monotonic() - began:.0f} s")


def descriptors(binary, home, runs):
    """`runs` connections to a gateway that may have 64 files open."""
    world = World(behave=flaky, most=2048)
    gateway = Gateway(binary, home, world.app_url)
    gateway.start(before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    world.load(20, gateway)
    host, port = gateway.ingress.split(":")
    idle = []
    for _ in range(runs):
        try:
            idle.append(socket.create_connection((host, int(port)), timeout=2))
        except OSError:
            break
    world.rest()
    before, asked = cpu(gateway), time.monotonic()
    time.sleep(2)
    share = (cpu(gateway) - before) / (time.monotonic() - asked)
    open_files = len(os.listdir(f"/proc/{gateway.process.pid}/fd"))
    for connection in idle:
        connection.close()
    world.load(20, gateway, seconds=60)
    world.rest()
    failed = "has failed" in gateway.log()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    print(f"64 descriptors, {len(idle)} connections: {open_files} open, {share * 100:.0f} % of a processor; {world.summary()}")
    if failed or share > 0.2 or open_files < 40:
        raise Failed(f"failed: {failed}, {share:.2f} of a processor, {open_files} open")


def cpu(gateway):
    fields = pathlib.Path(f"/proc/{gateway.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
