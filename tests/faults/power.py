"""Power cuts: a file system in a file, shut down under a gateway under load (FS_IOC_GOINGDOWN), mounted again.

What was flushed stays, the rest of what was written is gone, as when the power is cut. Root only.

The kernel is not as sharp as a power cut for a call that is under way: ext4 may let an fdatasync end with 0 that it has not
carried out (a trace showed fdatasync before the shutdown, EIO to another thread, then its 0, and the bytes missing after the
mount), and xfs seems to do the same. A machine without power sends no answer any more; so an answer that comes after the
shutdown has begun is not counted.
"""

import fcntl
import os
import pathlib
import random
import signal
import struct
import subprocess
import time

from gateway import Ended, Failed, Gateway, wait_until
from world import World, flaky

GOINGDOWN = 0x8004587D
LOG_FLUSHED, LOG_DROPPED = 1, 2  # FS_GOING_FLAGS_LOGFLUSH, FS_GOING_FLAGS_NOLOGFLUSH
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
IMAGE_BYTES = {"ext4": 256 << 20, "xfs": 320 << 20}  # mkfs.xfs makes none below 300 MiB


class Disk:
    """A file system of its own in an image below `home`."""

    def __init__(self, home, kind):
        self.image, self.at = pathlib.Path(home) / "image", pathlib.Path(home) / "disk"
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_BYTES[kind])
        subprocess.run([*MKFS[kind], str(self.image)], check=True)
        self.at.mkdir()
        self.kind, self.mounted = kind, False
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.at)], check=True)
        self.mounted = True
        (self.at / "alive").write_text("written")  # else this is the file system that was shut down, held by somebody

    def cut(self, flag):
        """From here on nothing reaches the image."""
        directory = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, GOINGDOWN, struct.pack("I", flag))
        finally:
            os.close(directory)

    def unmount(self):
        def gone():
            return subprocess.run(["umount", str(self.at)], stderr=subprocess.DEVNULL).returncode == 0

        if self.mounted:
            wait_until(gone, 30, "the file system cannot be unmounted")
            self.mounted = False

    def bytes(self, below):
        """The lengths of the log's files."""
        lengths = {}
        for file in pathlib.Path(below, "log").glob("*.log"):
            try:
                lengths[file.name] = file.stat().st_size
            except FileNotFoundError:
                pass  # let go of since
        return lengths


def run(binary, home, runs, kind, control=False):
    """Cuts the power `runs` times. `control` is a gateway whose flushes do nothing: it has to lose something."""
    chance = random.Random(runs)
    disk = Disk(home, kind)
    world = World(behave=flaky, most=4096)
    gateway = Gateway(binary, home, world.app_url, data=disk.at / "data", max_size="16MiB")
    prefix = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
    prefix += ["-e", "inject=fdatasync,fsync:retval=0"]
    reach = {"a request under way": 0, "inside a commit": 0, "seen by the gateway": 0, "bytes gone": 0, "log dropped": 0}
    began = time.monotonic()
    try:
        if control:
            gateway.start()  # so that there is a journal that has something to lose
            world.load(10, gateway)
            world.rest()
            world.settle(gateway)
            gateway.stop()
        for cycle in range(runs):
            gateway.start(prefix if control else ())
            world.load(chance.randrange(1, 120), gateway)
            flag = LOG_DROPPED if cycle % 2 else LOG_FLUSHED
            stopped = cycle % 4 < 2
            if stopped:
                gateway.signal(signal.SIGSTOP)
                reach["inside a commit"] += gateway.is_in_a_commit()
            reach["a request under way"] += world.under_way > 0
            before = disk.bytes(gateway.data)
            world.doubtful = True
            disk.cut(flag)
            if not stopped:
                # It goes on, and its disk fails: nothing that comes now may be acknowledged.
                wait_until(lambda: not gateway.lives() or "has failed" in gateway.log(), 20, "it never saw that its disk is gone")
                reach["seen by the gateway"] += 1
                time.sleep(0.02)
            gateway.kill()
            world.rest()
            world.doubtful = False
            disk.unmount()
            disk.mount()
            reach["log dropped"] += flag == LOG_DROPPED
            reach["bytes gone"] += any(disk.bytes(gateway.data).get(name, 0) < length for name, length in before.items())
            if control or cycle % 25 == 24 or cycle == runs - 1:
                gateway.start()
                if not control:
                    world.still_known(gateway)
                world.settle(gateway, keeps_numbers=False, seconds=5 if control else 60)
                gateway.kill()
                if not control:
                    print(f"  {cycle + 1} of {runs} cuts: {reach}; {world.summary()}; {time.monotonic() - began:.0f} s", flush=True)
    except (Failed, Ended) as broken:
        if control:
            return print(f"control, {kind}: flushes that do nothing were noticed after {cycle + 1} cuts: {str(broken)[:160]}")
        raise
    finally:
        world.send_to(None)
        gateway.kill()
        disk.unmount()
    if control:
        raise Failed(f"control, {kind}: {runs} cuts lost nothing although flushes did nothing: this harness notices nothing")
    met = ", ".join(f"{count} {what}" for what, count in reach.items())
    print(f"{runs} power cuts on {kind}: {met}; {world.summary()}, 0 refused openings, {world.counts['acknowledged in the cut itself']} answers in the cuts not counted, {world.repeated} attempts with a number that had come before; {time.monotonic() - began:.0f} s")
    if reach["a request under way"] * 2 < runs or reach["log dropped"] * 3 < runs or not reach["inside a commit"]:
        raise Failed(f"reach: {reach} of {runs}")
