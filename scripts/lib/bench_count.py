"""scripts/bench --count inside the virtual machine, whose clock counts instructions: 1 ns each.

Prints for every row what one operation costs the whole machine, client included, and each process
with what the kernel does for it. By difference of two run lengths, so that starting costs nothing.
"""

import argparse
import glob
import subprocess

import bench

ROWS = {
    # row: operations of the short and of the long run
    "4 KiB random, depth 1": (500, 2500),
    "4 KiB random, depth 32": (1000, 7000),
    "64 KiB sequential, depth 16": (300, 1500),
    "1 MiB sequential, depth 8": (50, 250),
    "4 KiB random read, depth 32": (1000, 7000),
    "4 KiB write + flush, depth 1": (300, 1500),
}


class Disks:
    """Memory disks, handed out one after the other."""

    def __init__(self, size):
        bench.run("modprobe", "brd", "rd_nr=8", f"rd_size={size >> 10}")
        self.free = sorted(glob.glob("/dev/ram?"), reverse=True)

    def take(self, _setup, _name):
        return self.free.pop()


def running(pid):
    """Nanoseconds that the threads of a process have run."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            total += int(file.read().split()[0])
    return total


def machine():
    """Nanoseconds that the processor was not idle."""
    with open("/proc/schedstat") as file:
        return sum(int(line.split()[7]) for line in file if line.startswith("cpu"))


def once(setup, fio, count):
    block = next(word for word in fio if word.startswith("--bs="))[len("--bs="):]
    total = count << {"k": 10, "m": 20}[block[-1]]
    before = {name: running(pid) for name, pid in setup.processes.items()}
    start = machine()
    subprocess.run(
        ["fio", "--name=count", "--ioengine=nbd", f"--uri={setup.uri}",
         f"--io_size={total * int(block[:-1])}", f"--size={(setup.size >> 20) - 8}M",
         "--norandommap", "--output-format=terse", *fio],
        check=True, stdout=subprocess.DEVNULL)
    elapsed = machine() - start
    return elapsed, {name: running(pid) - before[name] for name, pid in setup.processes.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--floor")
    parser.add_argument("--rows", default="")
    parser.add_argument("--setups", default="C")
    options = parser.parse_args()
    words = [word.strip() for word in options.rows.split(",") if word.strip()]
    size = 64 << 20
    disks = Disks(size)
    bench.Setup.disk = lambda setup, name: disks.take(setup, name)
    setups = []
    for name in options.setups.split(","):
        setups.append(bench.Repd(None if name == "standalone" else name, "/run", size))
    if options.floor:
        setups.append(bench.Floor(options.floor, "/run", size))
    for setup in setups:
        setup.start()
        bench.warm(setup)
    print("instructions per operation, kernel included, one processor, memory disks")
    for row, fio in bench.ROWS:
        if words and not any(word in row for word in words):
            continue
        print(row)
        short, long = ROWS[row]
        for setup in setups:
            once(setup, fio, short)
            first, second = once(setup, fio, short), once(setup, fio, long)
            per = [(second[0] - first[0]) / (long - short)]
            shares = "  ".join(
                f"{name} {(second[1][name] - first[1][name]) / (long - short):.0f}"
                for name in first[1])
            print(f"  {setup.name:18} machine {per[0]:9.0f}   {shares}", flush=True)
    for setup in setups:
        setup.stop()


if __name__ == "__main__":
    main()
