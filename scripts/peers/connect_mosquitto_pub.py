"""mosquitto_pub, a process a connection, as scripts around AWS's samples do: connect, publish one empty QoS 0 message,
leave. Nothing is held open, so what is told of memory is the largest process.

Only the processes count, not this program, and only when they have ended: so it tells their cost itself, as the kernel
counts it for its children.
"""

import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor

from peers.phases import client_id, connected, fail, hello_from, job, need_program, prepared

AT_ONCE = 2
"""Processes: they compute more than they wait."""
SECONDS = 30


def main() -> None:
    task = job()
    program = need_program("mosquitto_pub")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    hello_from(told.partition(" running")[0].strip())

    def device(number: int) -> str:
        bundle = str(task.bundle(number))
        command = [program, "-h", task.host, "-p", str(task.port), "--cafile", str(task.roots), "--cert", bundle]
        command += ["--key", bundle, "-i", client_id(number), "-k", str(task.keep_alive), "-t", "bench", "-n"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return "" if done.returncode == 0 else f"device {number}: {done.stderr.strip()}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for batch in task.batches:
            prepared()
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            failures = [each for each in pool.map(device, batch) if each]
            if failures:
                fail("; ".join(failures[:3]))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            connected(len(batch), cpu_seconds=spent, kib=after.ru_maxrss)


if __name__ == "__main__":
    main()
