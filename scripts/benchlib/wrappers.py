# SPDX-License-Identifier: MIT
"""What wrappers cost: crypt, striped, delay."""

import os
import re
import statistics
import subprocess
import time

from benchlib.measure import daemon_work, fio, make_file, progress, scale_pairs, scale_row
from benchlib.subjects import diskfs_of, qsd_export, settings_text


def openssl_speed(unit, options):
    """Bytes per second of XTS-AES-256 on one core, by OpenSSL's own measurement."""
    result = subprocess.run(
        ["openssl", "speed", "-seconds", str(max(1, round(options.runtime))), "-evp", "aes-256-xts",
         "-bytes", str(unit)], capture_output=True, text=True, check=True)
    return float(re.search(r"AES-256-XTS\s+([0-9.]+)k", result.stdout)[1]) * 1e3


def cpu_per_byte(process, path, row, options, folder):
    """Seconds of processor time that the daemon takes for a byte."""
    before = daemon_work(process)[0]
    rate = fio(path, options.size, row, options.runtime, True, folder)
    return (daemon_work(process)[0] - before) / (rate * 1e9 * options.runtime) / 1e9


def scale_crypt_core(folder, options):
    """
    How much of what a core can do is left of AES. The work of the daemon for the same requests to a
    RAM disk, without crypt, is taken off, since it is the same with any driver.
    """
    rows = []
    for unit in (512, 4096):
        ram = f"driver = ram\nsize = {options.size}\nsector_size = {unit}\n"
        text = settings_text(options.set) + f"[plain]\n{ram}\n[below]\n{ram}\n[crypt]\n"
        text += f"driver = crypt\nbelow = below\nkey_file = {crypt_key(folder)}\n"
        with diskfs_of(text, folder, f"crypt{unit}") as (mountpoint, process):
            paths = [os.path.join(mountpoint, name) for name in ("crypt.img", "plain.img")]
            for what in ("write", "read"):
                row = (what, ["--rw=" + what, "--bs=1M", "--iodepth=4"], "GB/s")
                name = f"1 MiB {what}, crypt on ram, units of {unit}: AES per core / openssl speed"
                speeds, crypts, plains = [], [], []
                for path in paths:
                    fio(path, options.size, row, min(options.runtime, 1), True, folder)
                for turn in range(options.rounds):
                    progress(f"{name}: round {turn + 1} of {options.rounds}")
                    speeds.append(openssl_speed(unit, options))
                    for path, seconds in zip(paths, (crypts, plains)):
                        seconds.append(cpu_per_byte(process, path, row, options, folder))
                # The medians are subtracted: in a single round the noise can exceed the rest.
                aes = max(statistics.median(crypts) - statistics.median(plains), 1e-15)
                rows.append(scale_row(name, "", [1 / aes / statistics.median(speeds)], ">=", 0.85))
                rows.append(scale_row(name.replace("AES per core", "all of the daemon per core"),
                                      "", [1 / c / s for c, s in zip(crypts, speeds)]))
    return rows


def crypt_key(folder):
    path = os.path.join(folder, "crypt.key")
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        out.write(bytes(range(64)))
    return path


def scale_crypt_requests(folder, options):
    ram = f"driver = ram\nsize = {options.size}\nsector_size = 4096\n"
    text = settings_text(options.set) + f"[plain]\n{ram}\n[below]\n{ram}\n[crypt]\n"
    text += f"driver = crypt\nbelow = below\nkey_file = {crypt_key(folder)}\n"
    rows = []
    with diskfs_of(text, folder, "crypt") as (mountpoint, _):
        for what in ("write", "read"):
            row = (what, ["--rw=rand" + what, "--bs=4k", "--iodepth=32"], "kIOPS")
            sides = [(os.path.join(mountpoint, name), row) for name in ("crypt.img", "plain.img")]
            rows.append(scale_pairs(f"4 KiB random {what}, depth 32, ram: with crypt / without",
                                    sides, 0.8, folder, options))
    return rows


def qsd_luks(volume, secret, folder):
    return qsd_export(
        folder, f"driver=file,node-name=file,filename={volume},aio=io_uring,locking=off",
        "driver=luks,node-name=disk,file=file,key-secret=secret",
        options=["--object", f"secret,id=secret,file={secret}"])


def scale_crypt_luks(folder, options):
    """The same LUKS volume by diskfs and by QEMU."""
    volume, secret = os.path.join(folder, "volume.luks"), os.path.join(folder, "secret")
    with open(secret, "w", encoding="ascii") as out:
        out.write("secret")
    os.chmod(secret, 0o600)
    with open(volume, "wb") as out:
        out.truncate(options.size + (2 << 20))
    subprocess.run(["cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations",
                    "1000", volume, secret], check=True)
    text = settings_text(options.set) + f"[file]\ndriver = file\npath = {volume}\nlock = no\n"
    text += f"[disk]\ndriver = crypt\nbelow = file\nformat = luks\nkey_file = {secret}\n"
    rows = []
    with diskfs_of(text, folder, "luks") as (mountpoint, _), \
            qsd_luks(volume, secret, folder) as rival:
        path = os.path.join(mountpoint, "disk.img")
        for what in ("write", "read"):
            for size, depth in (("1M", 4), ("4k", 32)):
                row = (what, ["--rw=rand" + what, f"--bs={size}", f"--iodepth={depth}"], "kIOPS")
                rows.append(scale_pairs(
                    f"random {what} of {size}, depth {depth}, LUKS on a file: diskfs / qsd",
                    [(path, row), (rival, row)], 2, folder, options))
    os.unlink(volume)
    return rows


def scale_crypt(_, folder, options):
    return (scale_crypt_core(folder, options) + scale_crypt_requests(folder, options)
            + scale_crypt_luks(folder, options))


def scale_striped(backing, folder, options):
    """Over four files, against one file."""
    members = [os.path.join(folder, f"member{i}.raw") for i in range(4)]
    text = settings_text(options.set) + f"[one]\ndriver = file\npath = {backing}\nlock = no\n"
    for i, path in enumerate(members):
        make_file(path, options.size // 4)
        text += f"[member{i}]\ndriver = file\npath = {path}\n"
    text += "[striped]\ndriver = striped\nbelow = member0, member1, member2, member3\n"
    rows = []
    with diskfs_of(text, folder, "striped") as (mountpoint, _):
        for size, depth in (("4k", 32), ("1M", 4)):
            for what in ("read", "write"):
                row = (what, ["--rw=rand" + what, f"--bs={size}", f"--iodepth={depth}"], "kIOPS")
                sides = [(os.path.join(mountpoint, name), row) for name in ("striped.img", "one.img")]
                rows.append(scale_pairs(
                    f"random {what} of {size}, depth {depth}: striped over 4 files / one file",
                    sides, 0.9, folder, options))
    for path in members:
        os.unlink(path)
    return rows


def scale_delay(backing, folder, options):
    """Many requests that wait 1 ms each, against requests that do not wait; and nothing to do."""
    file = f"driver = file\npath = {backing}\nlock = no\n"
    text = settings_text(options.set) + f"[fast]\n{file}[below]\n{file}"
    text += "[slow]\ndriver = delay\nbelow = below\nread_delay = 1ms\nwrite_delay = 1ms\n"
    rows = []
    with diskfs_of(text, folder, "delay") as (mountpoint, process):
        for what in ("read", "write"):
            row = (what, ["--rw=rand" + what, "--bs=4k", "--iodepth=256"], "kIOPS")
            name = f"4 KiB random {what}, depth 256, delayed by 1 ms"
            rates = {"slow": [], "fast": []}
            for turn in range(options.rounds):
                progress(f"{name}: round {turn + 1} of {options.rounds}")
                for side in ("slow", "fast") if turn % 2 == 0 else ("fast", "slow"):
                    rates[side].append(fio(os.path.join(mountpoint, side + ".img"), options.size, row,
                                           options.runtime, True, folder))
            # 200 kIOPS are enough, however fast it is without.
            bar = min(0.8, round(200 / statistics.median(rates["fast"]), 2))
            ratios = [slow / fast for slow, fast in zip(rates["slow"], rates["fast"])]
            rows.append(scale_row(name + " / without delay", "", ratios, ">=", bar))
            rows.append(scale_row(name, "kIOPS", rates["slow"]))
        idle = []
        for turn in range(options.rounds):
            before = daemon_work(process)[0]
            time.sleep(options.runtime)
            idle.append((daemon_work(process)[0] - before) / 1e6 / options.runtime)
        rows.append(scale_row("an idle delay: processor time of the daemon in a second", "ms", idle,
                              "<", 1))
    return rows


def scale_wrappers(backing, folder, options):
    return scale_striped(backing, folder, options) + scale_delay(backing, folder, options)
