"""Which file system a path is on, and whether that is one of another machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: Types whose locks or shared memory do not hold between processes as those of a local disk do.
REMOTE = frozenset(
    "9p afs beegfs ceph cifs coda davfs fuse.ceph fuse.davfs2 fuse.glusterfs fuse.s3fs fuse.sshfs gfs2 glusterfs gpfs "
    "lustre ncpfs nfs nfs4 ocfs2 orangefs smb3 smbfs virtiofs".split()
)


def remote(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the network file system that `path` is on or would be made on; `None` on a local one.

    Where the mounts cannot be read it counts as local. Source of the file's form: proc(5).
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    found, longest = None, -1
    for line in lines:
        head, _, tail = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), head.split(" ")[4])
        inside = point == "/" or place == point or place.startswith(point + "/")
        # Of two on the same point the later one lies on top.
        if inside and len(point) >= longest:
            found, longest = tail.split(" ")[0], len(point)
    return found if found in REMOTE else None
