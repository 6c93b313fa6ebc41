"""What test_jail runs inside the jail: each word on the command line does one thing that a hostile file might do."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from registry import jail


def main(what: str) -> None:
    match what:
        case "echo":
            sys.stdout.write(sys.stdin.read())
        case "environment":
            sys.stdout.write("\n".join(f"{key}={value}" for key, value in os.environ.items()))
        case "connect":
            try:
                socket.create_connection(("127.0.0.1", 5432), timeout=1)
            except OSError:
                sys.stdout.write("refused")
        case "interfaces":
            sys.stdout.write(",".join(sorted(name for _, name in socket.if_nameindex())))
        case "memory":
            hoard = [bytearray(16 * jail.MIB) for _ in range(100)]
            print(len(hoard))
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(60)
        case "talk":
            while True:
                print("x" * 1000)
        case "refuse":
            jail.refuse("The probe does not like this.")
        case "crash":
            raise KeyError("a secret of the server")
        case "big-file":
            Path(os.environ["HOME"], "big").write_bytes(bytes(2_000_000))
        case "home":
            sys.stdout.write(os.environ["HOME"])
        case "child":
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(60)"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            print(child.pid)


if __name__ == "__main__":
    main(sys.argv[1])
