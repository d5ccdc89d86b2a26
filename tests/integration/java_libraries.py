"""The jars that some tests need besides those of the broker."""

import fcntl
import hashlib
import os
import subprocess

from broker import ROOT


def java_libraries():
    """A directory with the jars of tests/recipes/pom.xml; Maven brings them once."""
    pom = os.path.join(ROOT, "tests", "recipes", "pom.xml")
    with open(pom, "rb") as f:
        wanted = hashlib.sha256(f.read()).hexdigest()
    directory = os.path.join(ROOT, "build", "recipes", wanted[:16])
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(directory, "complete")):
            subprocess.run(["mvn", "-q", "-B", "--strict-checksums", "-f", pom,
                            "dependency:copy-dependencies", "-DincludeScope=runtime",
                            f"-DoutputDirectory={directory}/lib"], check=True, timeout=240,
                           stdin=subprocess.DEVNULL)
            with open(os.path.join(directory, "complete"), "w", encoding="ascii"):
                pass
    return os.path.join(directory, "lib")
