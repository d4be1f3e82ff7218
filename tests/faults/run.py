"""Faults from outside, one part after the other: `run.py --binary FILE PART [--runs N] …`. `tests/faults.sh` is how to call it."""

import argparse
import importlib
import pathlib
import subprocess
import sys
import tempfile
import traceback

from gateway import STARTED, Ended, Failed


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--runs", type=int, required=True)
    arguments.add_argument("--home", help="where scratch files are made")
    arguments.add_argument("part", help="MODULE or MODULE.FUNCTION")
    arguments.add_argument("more", nargs="*", help="what that function takes, as NAME=VALUE")
    given = arguments.parse_args()
    module, _, function = given.part.partition(".")
    part = getattr(importlib.import_module(module), function or "run")
    more = dict(word.split("=", 1) for word in given.more)
    with tempfile.TemporaryDirectory(prefix="forebay-faults-", dir=given.home) as home:
        try:
            part(str(pathlib.Path(given.binary).resolve()), home, given.runs, **more)
        except (Failed, Ended, OSError, subprocess.SubprocessError) as broken:
            traceback.print_exc(limit=-3)
            sys.exit(f"FAILED: {given.part}: {broken}")
        finally:
            for started in STARTED:
                started.kill()


if __name__ == "__main__":
    main()
