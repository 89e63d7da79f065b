"""The counters in LMDB: what no death of a process, no full disk and no damage may change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from proxy.counters import Claim, Counters, Rate, Slots, Unavailable, Window
from proxy.counters.lmdb import FILE, Lmdb
from proxy.counters.mounts import remote

SIZE = 1 << 20


@pytest.fixture
def store(tmp_path):
    made = Lmdb(tmp_path, SIZE)
    yield made
    made.close()


def take(store, *wants):
    claim = Claim(os.urandom(16), list(wants), [])
    store.take(claim)
    return claim


def left(store, bucket):
    return take(store, (bucket, 0)).states[0].left


def test_counts_outlive_the_process_that_made_them(tmp_path):
    day = Window("d", 100, "month")
    first = Lmdb(tmp_path, SIZE)
    take(first, (day, 40))
    first.close()
    second = Lmdb(tmp_path, SIZE)
    assert left(second, day) == 60
    second.close()


def test_the_file_is_its_owners_alone_and_its_room_is_set_aside(store):
    take(store, (Rate("r", 1), 1))
    found = os.stat(store.path)
    assert found.st_mode & 0o777 == 0o600
    assert os.stat(f"{store.path}-lock").st_mode & 0o777 == 0o600
    assert found.st_blocks * 512 >= SIZE


KILLED = """
import os, sys
from pathlib import Path
from proxy.counters import Claim, Window
from proxy.counters.lmdb import Lmdb
store, day = Lmdb(Path(sys.argv[1]), 1 << 20), Window("d", 10**9, "month")
granted = 0
while True:
    claim = Claim(os.urandom(16), [(day, 1)], [])
    store.take(claim)
    granted += claim.granted
    os.write(1, granted.to_bytes(4, "big"))
"""


def test_killing_a_process_in_the_middle_loses_and_blocks_nothing(store, tmp_path):
    day = Window("d", 10**9, "month")
    told = 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        seen = process.stdout.read(4 * 500)
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.read()
        process.wait()
        process.stdout.close()
        told += len(seen) // 4
    used = 10**9 - left(store, day)
    # A process may have been killed between counting and telling, once each.
    assert told <= used <= told + 5


HOLDS = """
import sys, threading
from pathlib import Path
from proxy.counters import Counters, Rate, Slots, Window
from proxy.counters.lmdb import Lmdb
counters = Counters(Lmdb(Path(sys.argv[1]), 1 << 20))
wants = [(Slots("s", 50, term_s=1.5), 1), (Rate("tokens", 10**6), 100), (Window("money", 10**6, "month"), 1000)]
for _ in range(50):
    assert counters.take(wants).granted
print("held", flush=True)
threading.Event().wait()
"""


def test_the_slots_of_a_killed_worker_come_back_and_its_reservations_stay_spent_once(tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"held\n"
    counters = Counters(Lmdb(tmp_path, SIZE))
    slots, money = Slots("s", 50, term_s=1.5), Window("money", 10**6, "month")
    assert not counters.take([(slots, 1)]).granted
    worker.kill()
    worker.wait()
    worker.stdout.close()
    waited, deadline = threading.Event(), time.monotonic() + 20
    while any(status.used for status in counters.store.read() if status.kind == "slots"):
        assert time.monotonic() < deadline
        waited.wait(0.02)
    claim = counters.take([(slots, 1), (money, 0)])
    assert (claim.granted, claim.states[0].left) == (True, 49)
    assert claim.states[1].left == 10**6 - 50 * 1000
    counters.close()


def test_it_is_opened_after_the_fork_and_not_before(store):
    take(store, (Rate("r", 1), 1))
    child = os.fork()
    if child == 0:
        try:
            take(store, (Rate("r", 1), 1))
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_full_file_refuses_and_goes_on_when_there_is_room(store):
    with pytest.raises(Unavailable, match=r"is full: raise counters\.size_mib"):
        for number in range(20_000):
            claim = take(store, (Window(f"{'x' * 300}{number}", 100, "month"), 50))
    with pytest.raises(Unavailable, match="is full"):
        store.probe()
    store.settle([(claim, [7])])  # what was granted is settled all the same
    store.reset([status.name for status in store.read()[:2000]])
    store.probe()
    assert take(store, (Window("more", 100, "month"), 1)).granted


@pytest.mark.parametrize("damage", [b"not a database" * 1000, b"\0" * 8192])
def test_a_damaged_file_is_told_with_its_remedy(tmp_path, damage):
    (tmp_path / FILE).write_bytes(damage)
    store = Lmdb(tmp_path, SIZE)
    with pytest.raises(Unavailable, match="lockgate counters repair"):
        take(store, (Rate("r", 1), 1))
    with pytest.raises(Unavailable, match="lockgate counters repair"):
        take(store, (Rate("r", 1), 1))
    store.close()


def test_another_file_in_its_place_is_noticed(store, tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.counters.lmdb.LOOK_S", 0.0)
    day = Window("d", 100, "month")
    take(store, (day, 40))
    store.path.rename(tmp_path / "aside")
    (tmp_path / f"{FILE}-lock").unlink()
    (tmp_path / "new").mkdir()
    other = Lmdb(tmp_path / "new", SIZE)
    take(other, (day, 10))
    other.close()
    other.path.rename(store.path)
    assert left(store, day) == 90


def test_a_file_that_vanishes_hands_nothing_out_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.counters.lmdb.LOOK_S", 0.0)
    monkeypatch.setattr("proxy.counters.lmdb.AGAIN_S", 0.0)
    day = Window("d", 100, "month")
    take(store, (day, 40))
    store.path.rename(tmp_path / "aside")
    for _ in range(2):
        with pytest.raises(Unavailable, match="is gone: stop Lockgate and run `lockgate counters repair`"):
            take(store, (day, 1))
    (tmp_path / "aside").rename(store.path)
    assert left(store, day) == 60


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxy.counters.lmdb.os.posix_fallocate", full)
    store = Lmdb(tmp_path, SIZE)
    with pytest.raises(Unavailable, match="No space left on device"):
        take(store, (Rate("r", 1), 1))
    monkeypatch.undo()
    monkeypatch.setattr("proxy.counters.lmdb.AGAIN_S", 0.0)
    store._look_at = 0.0
    assert take(store, (Rate("r", 1), 1)).granted
    store.close()


def test_slots_do_not_outlive_the_machines_run(store):
    slots = Slots("s", 1, term_s=10**6)
    assert take(store, (slots, 1)).granted
    store.close()
    assert not take(store, (slots, 1)).granted
    with store._opened().begin(write=True) as records:
        records.put(b"!boot", b"another run")
    store.close()
    store._look_at = 0.0
    assert take(store, (slots, 1)).granted


def test_what_tells_nothing_any_more_is_swept(tmp_path):
    now = [1_000_000.0]
    store = Lmdb(tmp_path, SIZE, steady=lambda: now[0], wall=lambda: now[0])
    for number in range(50):
        take(store, (Rate(f"r{number}", 60), 60), (Slots(f"s{number}", 1), 1), (Window(f"w{number}", 1, "day"), 1))
    now[0] += 61
    for _ in range(5):
        store.sweep(40)
    assert {status.kind for status in store.read()} == {"window"}
    now[0] += 5 * 86400
    take(store, (Rate("new", 1), 1))
    store.sweep()
    assert [status.name for status in store.read()] == ["new"]
    store.close()


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw - nfs4 filer:/srv rw
31 30 8:2 / /srv/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /with\\040space rw shared:7 master:1 - cifs //filer/share rw
33 22 0:42 / /over rw - ext4 /dev/sdc1 rw
34 22 0:43 / /over rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/lockgate", None),
        ("/srv/lockgate", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvx", None),
        ("/srv/local/lockgate", None),
        ("/with space/state", "cifs"),
        ("/over/x", "fuse.sshfs"),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path, path, kind):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert remote(path, mounts) == kind


def test_where_the_mounts_cannot_be_read_it_counts_as_local(tmp_path):
    assert remote(tmp_path, tmp_path / "none") is None


def test_a_state_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.counters.lmdb.remote", lambda path: "nfs4")
    store = Lmdb(tmp_path, SIZE)
    with pytest.raises(Unavailable, match=r"network file system \(nfs4\)"):
        take(store, (Rate("r", 1), 1))
