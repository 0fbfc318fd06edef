"""The part of scripts/bench that sets up, runs and prints; see there."""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BIN = os.environ["REPD_BIN"]
TICK = os.sysconf("SC_CLK_TCK")

ROWS = [
    # name, fio arguments
    ("4 KiB random, depth 1", ["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
    ("4 KiB random, depth 32", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("64 KiB sequential, depth 16", ["--rw=write", "--bs=64k", "--iodepth=16"]),
    ("1 MiB sequential, depth 8", ["--rw=write", "--bs=1m", "--iodepth=8"]),
    ("4 KiB random read, depth 32", ["--rw=randread", "--bs=4k", "--iodepth=32"]),
    ("4 KiB write + flush, depth 1", ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"]),
    ("4 KiB random read, depth 1", ["--rw=randread", "--bs=4k", "--iodepth=1"]),
    ("4 KiB random, 16 connections",
     ["--rw=randwrite", "--bs=4k", "--iodepth=2", "--numjobs=16", "--group_reporting"]),
]


def fail(text):
    sys.exit(f"bench: {text}")


def run(*command, quiet=True):
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {(done.stderr or '').strip() or done.returncode}")
    return done.stdout


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(what, condition, limit=30):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            fail(f"{what}: not within {limit} s")
        time.sleep(0.02)


def cpu_seconds(pid):
    """User and system time of all threads, of those that have ended too."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Setup:
    """What a client can use: processes to account for, and a URI."""

    def __init__(self, name, area, size):
        self.name = name
        self.directory = os.path.join(area, name)
        self.size = size
        self.uri = None
        self.processes = {}  # name: pid
        self.children = []
        os.mkdir(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def disk(self, name):
        """Every block is written once: allocating space is nobody's subject here."""
        path = self.path(name)
        with open(path, "wb") as file:
            zeros = bytes(1 << 20)
            for _ in range(self.size >> 20):
                file.write(zeros)
            file.flush()
            os.fsync(file.fileno())
        return path

    def start_process(self, name, *command):
        with open(self.path(f"{name}.log"), "wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.children.append(child)
        self.processes[name] = child.pid
        return child

    def log_of(self, name):
        with open(self.path(f"{name}.log")) as file:
            return file.read().strip()

    def wait_socket(self, name, path):
        def ready():
            if self.children[-1].poll() is not None:
                fail(f"{self.name}: {name} ended: {self.log_of(name)}")
            return os.path.exists(path)

        wait_for(f"{self.name}: {name}", ready)

    def wait_port(self, name, port):
        def ready():
            if self.children[-1].poll() is not None:
                fail(f"{self.name}: {name} ended: {self.log_of(name)}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(f"{self.name}: {name}", ready)

    def stop(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in reversed(self.children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.children = []


class Repd(Setup):
    """One node, or two with the given protocol."""

    def __init__(self, protocol, area, size):
        super().__init__(f"repd-{protocol}" if protocol else "repd-standalone", area, size)
        self.protocol = protocol
        self.nodes = ["pri", "sec"] if protocol else ["pri"]

    def control(self, node, *command):
        return run(
            f"{BIN}/repctl", "-c", self.path("repd.conf"), "--run-dir", self.path(node),
            "--node-name", node, *command)

    def start(self):
        disks = {node: self.path("none") for node in ("pri", "sec")}
        disks.update({node: self.disk(node + ".disk") for node in self.nodes})
        sections = "".join(
            f"on {node} {{ device /dev/drbd0; disk {disks[node]}; "
            f"address 127.0.0.1:{free_port()}; meta-disk internal; }}\n"
            for node in ("pri", "sec"))
        with open(self.path("repd.conf"), "w") as file:
            file.write(
                f"resource r0 {{ net {{ protocol {self.protocol or 'C'}; }}\n"
                f"disk {{ c-plan-ahead 0; resync-rate 2000M; c-max-rate 2000M; }}\n{sections}}}\n")
        for node in self.nodes:
            os.mkdir(self.path(node))
            self.control(node, "create-md", "--force", "r0")
            # The daemon is our child, not repctl's: it is to end with this script.
            self.start_process(
                node, f"{BIN}/repd", "r0", "--run-dir", self.path(node), "--node-name", node)
            self.wait_socket(node, self.path(f"{node}/r0/control.sock"))
            self.control(node, "up", "r0")
        if self.protocol:
            self.control("pri", "wait-connect", "r0")
        else:
            self.control("pri", "disconnect", "r0")
        self.control("pri", "primary", "--force", "r0")
        if self.protocol:
            self.control("pri", "wait-sync", "r0")
        self.uri = f"nbd+unix:///r0?socket={self.path('pri/r0/nbd.sock')}"


class QemuNBD(Setup):
    def start(self):
        path = self.path("s")
        self.start_process(
            "qemu-nbd", "qemu-nbd", "--cache=none", "--aio=io_uring", "-f", "raw", "-k", path,
            "-e", "32", "-t", self.disk("disk"))
        self.wait_socket("qemu-nbd", path)
        self.uri = f"nbd+unix:///?socket={path}"


class NBDKit(Setup):
    def start(self):
        path = self.path("s")
        self.start_process("nbdkit", "nbdkit", "-f", "-U", path, "file", self.disk("disk"))
        self.wait_socket("nbdkit", path)
        self.uri = f"nbd+unix:///?socket={path}"


class Mirror(Setup):
    """qemu-storage-daemon with an active mirror to a server on TCP."""

    def __init__(self, target, area, size):
        super().__init__(f"mirror-{target}", area, size)
        self.target = target

    def start(self):
        port = free_port()
        second = self.disk("sec.disk")
        if self.target == "nbdkit":
            self.start_process(
                "sec", "nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "file", second)
        else:
            self.start_process(
                "sec", "qemu-nbd", "--cache=none", "--aio=io_uring", "-f", "raw", "-b",
                "127.0.0.1", "-p", str(port), "-e", "32", "-t", second)
        self.wait_port("sec", port)
        monitor, path = self.path("qmp"), self.path("s")
        self.start_process(
            "pri", "qemu-storage-daemon", "--blockdev",
            f"driver=file,node-name=pri,filename={self.disk('pri.disk')},cache.direct=on,"
            "aio=io_uring", "--blockdev",
            "driver=nbd,node-name=sec,server.type=inet,server.host=127.0.0.1,"
            f"server.port={port}", "--nbd-server", f"addr.type=unix,addr.path={path}",
            "--chardev", f"socket,id=m,path={monitor},server=on,wait=off", "--monitor",
            "chardev=m")
        self.wait_socket("pri", monitor)
        self.command(monitor, [
            ("blockdev-mirror", {
                "job-id": "mirror", "device": "pri", "target": "sec", "sync": "none",
                "copy-mode": "write-blocking", "filter-node-name": "both"}),
            ("block-export-add", {
                "type": "nbd", "id": "export", "node-name": "both", "name": "",
                "writable": True}),
        ])
        self.wait_socket("pri", path)
        self.uri = f"nbd+unix:///?socket={path}"

    def command(self, monitor, commands):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(monitor)
            lines = client.makefile("rw")
            lines.readline()
            for name, arguments in [("qmp_capabilities", {})] + commands:
                json.dump({"execute": name, "arguments": arguments}, lines)
                lines.write("\n")
                lines.flush()
                while True:
                    answer = json.loads(lines.readline())
                    if "error" in answer:
                        fail(f"{self.name}: {name}: {answer['error']['desc']}")
                    if "return" in answer:
                        break


class Floor(Setup):
    def __init__(self, program, area, size):
        super().__init__("floor", area, size)
        self.program = program

    def start(self):
        port, path = str(free_port()), self.path("s")
        self.start_process(
            "sec", self.program, "secondary", "--disk", self.disk("sec.disk"), "--listen", port)
        time.sleep(0.3)
        self.start_process(
            "pri", self.program, "primary", "--disk", self.disk("pri.disk"), "--listen", path,
            "--peer", f"127.0.0.1:{port}")
        self.wait_socket("pri", path)
        self.uri = f"nbd+unix:///?socket={path}"


def measure(setup, arguments, seconds):
    """Operations per second, CPU microseconds per operation of each process."""
    before = {name: cpu_seconds(pid) for name, pid in setup.processes.items()}
    output = run(
        "fio", "--name=bench", "--ioengine=nbd", f"--uri={setup.uri}", "--time_based",
        f"--runtime={seconds}", f"--size={(setup.size >> 20) - 8}M", "--norandommap",
        "--randrepeat=0", "--output-format=json", *arguments)
    after = {name: cpu_seconds(pid) for name, pid in setup.processes.items()}
    job = json.loads(output[output.index("{"):])["jobs"][0]
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    count = max(1, side["total_ios"])
    cpu = {name: (after[name] - before[name]) / count * 1e6 for name in before}
    return side["iops"], cpu, side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1000


def warm(setup):
    """Every extent becomes hot, and the paths of the programs too."""
    run(
        "fio", "--name=warm", "--ioengine=nbd", f"--uri={setup.uri}", "--rw=write", "--bs=1m",
        "--iodepth=8", f"--size={(setup.size >> 20) - 8}M", "--output-format=json")


def choose(options, area):
    """The setups asked for, in the order of the table."""
    made = {
        "standalone": lambda: Repd(None, area, options.size),
        "qemu-nbd": lambda: QemuNBD("qemu-nbd", area, options.size),
        "nbdkit": lambda: NBDKit("nbdkit", area, options.size),
        "A": lambda: Repd("A", area, options.size),
        "B": lambda: Repd("B", area, options.size),
        "C": lambda: Repd("C", area, options.size),
        "mirror-nbdkit": lambda: Mirror("nbdkit", area, options.size),
        "mirror-qemu": lambda: Mirror("qemu", area, options.size),
    }
    if options.floor:
        made["floor"] = lambda: Floor(options.floor, area, options.size)
    wanted = options.setups.split(",") if options.setups else list(made)
    for name in wanted:
        if name not in made:
            fail(f"no setup '{name}': there are {', '.join(made)}")
    return [made[name]() for name in made if name in wanted]


def median(runs):
    ops = statistics.median(one[0] for one in runs)
    cpu = {name: statistics.median(one[1][name] for one in runs) for name in runs[0][1]}
    return ops, cpu, statistics.median(one[2] for one in runs)


def print_table(rows, setups, figures):
    for row, _ in rows:
        print(f"\n{row}")
        print(f"  {'':18} {'ops/s':>9} {'p99 us':>8}   CPU us/op")
        for setup in setups:
            ops, cpu, p99 = figures[row][setup.name]
            shares = "  ".join(f"{name} {value:.1f}" for name, value in cpu.items())
            print(f"  {setup.name:18} {ops:9.0f} {p99:8.0f}   {shares}")


class Verdicts:
    """Where a row stands against its target (docs: performance)."""

    def __init__(self, figures):
        self.figures = figures
        self.lines = []

    def ops(self, row, name):
        return self.figures.get(row, {}).get(name, (None,))[0]

    def cpu(self, row, name):
        """Of the process that the client talks to."""
        found = self.figures.get(row, {}).get(name)
        return next(iter(found[1].values())) if found and len(found[1]) == 1 else (
            found[1].get("pri") if found else None)

    def judge(self, row, text, value, against, target, at_most=False):
        if value is None or not against:
            return
        ratio = value / against
        good = ratio <= target if at_most else ratio >= target
        sign = "at most" if at_most else "at least"
        self.lines.append(
            f"  {'ok  ' if good else 'MISS'} {row:30} {text:44} {ratio:5.2f} x ({sign} {target})")

    def all(self, tmpfs):
        c, alone = "repd-C", "repd-standalone"
        one, deep, middle, large, reading, flush, *_ = (row for row, _ in ROWS)
        for row, _ in ROWS:
            self.judge(row, "C: ops against the floor", self.ops(row, c),
                       self.ops(row, "floor"), 0.95)
            self.judge(row, "C: CPU of the primary against the floor", self.cpu(row, c),
                       self.cpu(row, "floor"), 1.2, at_most=True)
        least = {one: 1.1, middle: 1.5, large: 2.5, flush: 0.75}
        if tmpfs:
            least[deep] = 1.5
        for row, target in least.items():
            mirrors = [self.ops(row, name) or 0 for name in ("mirror-nbdkit", "mirror-qemu")]
            self.judge(row, "C: ops against the better mirror", self.ops(row, c), max(mirrors),
                       target)
        for row, target in ((deep, 0.5), (large, 0.35)):
            mirrors = [
                (self.ops(row, name), self.cpu(row, name))
                for name in ("mirror-nbdkit", "mirror-qemu") if self.ops(row, name)]
            if mirrors:
                self.judge(row, "C: CPU of the primary against that mirror", self.cpu(row, c),
                           max(mirrors)[1], target, at_most=True)
        self.judge(one, "A against C: ops", self.ops(one, "repd-A"), self.ops(one, c), 1.3)
        self.judge(deep, "C against standalone: ops", self.ops(deep, c), self.ops(deep, alone),
                   0.55)
        for row, _ in ROWS:
            target = 1.5 if row in (deep, reading) else 1.0
            self.judge(row, "standalone: ops against qemu-nbd", self.ops(row, alone),
                       self.ops(row, "qemu-nbd"), target)
            self.judge(row, "standalone: CPU against qemu-nbd", self.cpu(row, alone),
                       self.cpu(row, "qemu-nbd"), 0.5, at_most=True)
        return self.lines


def size_of(text):
    units = {"M": 20, "G": 30}
    if not text or text[-1] not in units or not text[:-1].isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is no size like 512M or 2G")
    return int(text[:-1]) << units[text[-1]]


def arguments():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--seconds", type=int, default=None)
    parser.add_argument("--rows", default="")
    parser.add_argument("--setups", default="")
    parser.add_argument("--floor", default=None)
    parser.add_argument("--size", type=size_of, default=512 << 20)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--tmpfs", action="store_true")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 3)
    if options.tmpfs:
        options.dir = "/dev/shm"
    if options.floor and not os.access(options.floor, os.X_OK):
        fail(f"{options.floor}: no program")
    return options


def main():
    options = arguments()
    words = [word.strip() for word in options.rows.split(",") if word.strip()]
    rows = [row for row in ROWS if not words or any(word in row[0] for word in words)]
    if not rows:
        fail(f"no row has one of these words: {options.rows}")
    area = tempfile.mkdtemp(prefix="repd-bench.", dir=options.dir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setups = []
    try:
        for setup in choose(options, area):
            print(f"setting up {setup.name}", file=sys.stderr)
            setups.append(setup)
            setup.start()
            warm(setup)
        figures, all_runs = measure_all(rows, setups, options)
    finally:
        for setup in setups:
            setup.stop()
        shutil.rmtree(area, ignore_errors=True)
    place = "tmpfs" if options.tmpfs else f"files in {options.dir}"
    print(
        f"medians of {options.runs} interleaved runs of {options.seconds} s, fio with libnbd, "
        f"{place}, {os.cpu_count()} cores")
    print_table(rows, setups, figures)
    verdicts = Verdicts(figures).all(options.tmpfs)
    if verdicts:
        print("\nagainst the targets")
        print("\n".join(verdicts))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(all_runs, file, indent=1)


def measure_all(rows, setups, options):
    figures, all_runs = {}, {}
    for row, fio in rows:
        runs = {setup.name: [] for setup in setups}
        for number in range(options.runs):
            # A different first one each time: nobody always comes after the same neighbour.
            for step in range(len(setups)):
                setup = setups[(step + number) % len(setups)]
                runs[setup.name].append(measure(setup, fio, options.seconds))
        figures[row] = {name: median(found) for name, found in runs.items()}
        all_runs[row] = runs
        print(f"measured: {row}", file=sys.stderr)
    return figures, all_runs


if __name__ == "__main__":
    main()
