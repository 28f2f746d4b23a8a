# SPDX-License-Identifier: MIT
"""
Remote disks: on a link of 20 ms and 1 Gbit/s (link.c, in front of nginx on this machine), against what
curl gets for the whole object and against nbdkit's curl plugin through nbdfuse; and without the link.
"""

import contextlib
import os
import re
import socket
import subprocess
import time

from benchlib.measure import fio, make_file, progress, scale_row
from benchlib.subjects import diskfs_of, mounted, running, settings_text, wait_until

MIB = 1 << 20
OBJECT = 256 * MIB      # what is read of it takes about two seconds on the link
WARM = 64 * MIB         # fits into the cache
ROUND_TRIP_MS = 20
MBIT = 1000

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
http {{
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	client_body_temp_path {folder}/nginx-body;
	proxy_temp_path {folder}/nginx-proxy;
	fastcgi_temp_path {folder}/nginx-fastcgi;
	uwsgi_temp_path {folder}/nginx-uwsgi;
	scgi_temp_path {folder}/nginx-scgi;
	server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


@contextlib.contextmanager
def nginx(folder):
    """Serves what is in the folder's www; gives the port."""
    port, conf = free_port(), os.path.join(folder, "nginx.conf")
    with open(conf, "w", encoding="utf-8") as out:
        out.write(NGINX.format(folder=folder, port=port,
                               user="user root;" if os.geteuid() == 0 else ""))
    with running(["nginx", "-e", f"{folder}/nginx.err", "-p", folder, "-c", conf],
                 conf + ".log") as process:
        wait_until(lambda: accepts(port), "nginx", process)
        yield port


@contextlib.contextmanager
def link(port, folder, round_trip_ms=ROUND_TRIP_MS, mbit=MBIT):
    """A link in front of a port; gives its own port."""
    program = os.path.join(folder, "link")
    log = f"{program}.{round_trip_ms}.{mbit}.log"
    if not os.path.exists(program):
        source = os.path.join(os.path.dirname(__file__), "link.c")
        subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-o",
                        program, source], check=True)
    with running([program, str(port), str(round_trip_ms), str(mbit)], log) as process:
        wait_until(lambda: os.path.getsize(log), "link", process)
        with open(log, encoding="ascii") as out:
            yield int(out.read())


@contextlib.contextmanager
def diskfs_blob(url, folder, options, more=""):
    text = settings_text(options.set) + f"[disk]\ndriver = blob\nurl = {url}\n{more}"
    with diskfs_of(text, folder, "blob") as (mountpoint, _):
        yield os.path.join(mountpoint, "disk.img")


@contextlib.contextmanager
def nbdkit_curl(url, folder, *filters):
    """nbdfuse over nbdkit's curl plugin, with its defaults."""
    sock, path = os.path.join(folder, "nbd.sock"), os.path.join(folder, "nbd.img")
    open(path, "w", encoding="utf-8").close()
    with running(["nbdkit", "-f", "-r", "-U", sock, *(f"--filter={name}" for name in filters),
                  "curl", url], sock + ".log") as server:
        wait_until(lambda: os.path.exists(sock), "nbdkit", server)
        with mounted(["nbdfuse", "-r", path, "--unix", sock], path, path + ".log"):
            yield path
    for name in (sock, path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def stream(path, seconds):
    """Reads a file from its beginning, as cat does, to its end or so long; MB/s."""
    begin, total = time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        while time.monotonic() - begin < seconds and (block := file.read(MIB)):
            total += len(block)
    return total / (time.monotonic() - begin) / 1e6


def curl(url):
    """The whole object; MB/s."""
    result = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{speed_download}", url],
                            capture_output=True, text=True, check=True)
    return float(result.stdout) / 1e6


def measure_link(port, folder):
    """What the link by itself does: bytes, when nothing limits them, and the round trip."""
    with link(port, folder, 0, 0) as free:
        progress("the link by itself")
        rate = curl(f"http://127.0.0.1:{free}/disk.raw")
    with link(port, folder) as slow:
        url = f"http://127.0.0.1:{slow}/disk.raw"
        result = subprocess.run(
            ["curl", "-sS", "-r", "0-4095", "-o", "/dev/null", url, "--next", "-sS", "-r", "4096-8191",
             "-o", "/dev/null", "-w", "%{time_total}", url], capture_output=True, text=True, check=True)
    return [scale_row("the link without delay and limit: curl of the whole object", "MB/s", [rate],
                      ">=", MBIT / 8 * 2),
            scale_row(f"a request of 4 KiB on the link of {ROUND_TRIP_MS} ms", "ms",
                      [float(re.findall(r"[0-9.]+", result.stdout)[-1]) * 1e3])]


# What reads the object from the beginning: a context each that gives the path.
RIVALS = {
    "nbdkit-curl": (lambda url, folder, _: nbdkit_curl(url, folder), 5),
    "nbdkit-curl with readahead and cache":
        (lambda url, folder, _: nbdkit_curl(url, folder, "readahead", "cache"), 1.2),
}


def scale_stream(url, folder, options):
    """Sequential reads, each of a new mount."""
    subjects = {"diskfs": diskfs_blob, **{name: rival[0] for name, rival in RIVALS.items()}}
    rates = {name: [] for name in ["curl", *subjects]}
    for turn in range(options.rounds):
        progress(f"sequential reads: round {turn + 1} of {options.rounds}")
        rates["curl"].append(curl(url))
        for name, subject in subjects.items():
            with subject(url, folder, options) as path:
                rates[name].append(stream(path, max(options.runtime, 1) * 5))
    def against(name):
        return [ours / its for ours, its in zip(rates["diskfs"], rates[name])]
    what = f"{ROUND_TRIP_MS} ms, {MBIT} Mbit/s, sequential"
    return [scale_row(f"{what}: diskfs", "MB/s", rates["diskfs"]),
            scale_row(f"{what}: diskfs / curl of the whole object", "", against("curl"), ">=", 0.9),
            *(scale_row(f"{what}: diskfs / {name}", "", against(name), ">=", rival[1])
              for name, rival in RIVALS.items())]


def scale_random(url, folder, options):
    """Random reads that the cache does not have: each mount is new."""
    ideal = 32 / (ROUND_TRIP_MS / 1e3)
    row = ("read", ["--rw=randread", "--bs=4k", "--iodepth=32"], "kIOPS")
    ratios = []
    for turn in range(options.rounds):
        progress(f"random reads: round {turn + 1} of {options.rounds}")
        with diskfs_blob(url, folder, options) as path:
            # The first connections take their time.
            fio(path, OBJECT, row, 1, True, folder)
            ratios.append(fio(path, OBJECT, row, options.runtime, True, folder) * 1e3 / ideal)
    return [scale_row(f"{ROUND_TRIP_MS} ms, 4 KiB random read, depth 32: IOPS / (32 / round trip)", "",
                      ratios, ">=", 0.9)]


def scale_warm(url, folder, options):
    """What the cache has, against a RAM disk of the same size."""
    text = settings_text(options.set) + f"[blob]\ndriver = blob\nurl = {url}\n"
    text += f"[ram]\ndriver = ram\nsize = {WARM}\n"
    rows = []
    with diskfs_of(text, folder, "warm") as (mountpoint, _):
        paths = [os.path.join(mountpoint, name) for name in ("blob.img", "ram.img")]
        subprocess.run(["dd", "if=/dev/zero", f"of={paths[1]}", "bs=1M", f"count={WARM // MIB}",
                        "oflag=direct", "conv=notrunc", "status=none"], check=True)
        subprocess.run(["dd", f"if={paths[0]}", "of=/dev/null", "bs=1M", "iflag=direct",
                        "status=none"], check=True)
        for size, depth, how in (("4k", 32, "randread"), ("1M", 4, "read")):
            row = ("read", ["--rw=" + how, f"--bs={size}", f"--iodepth={depth}"], "kIOPS")
            name = f"warm cache, {how} of {size}, depth {depth}: blob / ram"
            ratios = []
            for turn in range(options.rounds):
                progress(f"{name}: round {turn + 1} of {options.rounds}")
                values = [fio(path, WARM, row, options.runtime, True, folder) for path in paths]
                ratios.append(values[0] / values[1])
            rows.append(scale_row(name, "", ratios, ">=", 0.8))
    return rows


def scale_loopback(url, folder, options):
    """Without the link, to see what diskfs itself can."""
    random = ("read", ["--rw=randread", "--bs=4k", "--iodepth=32"], "kIOPS")
    rates, streams, curls = [], [], []
    for turn in range(options.rounds):
        progress(f"without the link: round {turn + 1} of {options.rounds}")
        curls.append(curl(url))
        with diskfs_blob(url, folder, options) as path:
            streams.append(stream(path, 30))
        # Without the cache, so that it does not take over.
        with diskfs_blob(url, folder, with_setting(options, "cache_memory=0")) as path:
            rates.append(fio(path, OBJECT, random, options.runtime, True, folder))
    return [scale_row("loopback, sequential: curl of the whole object", "MB/s", curls),
            scale_row("loopback, sequential: diskfs", "MB/s", streams),
            scale_row("loopback, 4 KiB random read, depth 32, no cache: diskfs", "kIOPS", rates)]


def with_setting(options, line):
    return type(options)(**{**vars(options), "set": [*options.set, line]})


def scale_blob(_, folder, options):
    os.mkdir(os.path.join(folder, "www"))
    for name, size in (("disk.raw", OBJECT), ("warm.raw", WARM)):
        make_file(os.path.join(folder, "www", name), size)
    with nginx(folder) as port:
        here = f"http://127.0.0.1:{port}"
        rows = measure_link(port, folder)
        with link(port, folder) as slow:
            there = f"http://127.0.0.1:{slow}"
            rows += scale_stream(f"{there}/disk.raw", folder, options)
            rows += scale_random(f"{there}/disk.raw", folder, options)
        rows += scale_warm(f"{here}/warm.raw", folder, options)
        return rows + scale_loopback(f"{here}/disk.raw", folder, options)
