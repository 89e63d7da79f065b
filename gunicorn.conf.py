"""gunicorn's settings for Lockgate: what was measured, with the reason; the rest comes from `[server]` of the file."""

import gc
import pathlib
import sys

# Installed, this file lies in the package; in a source tree, beside it. gunicorn puts the working directory first on
# the module path, where some other `proxy` may lie.
_here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(_here.parent if (_here / "serving").is_dir() else _here))
from proxy import serving

del sys.path[0]

_server, _flight = serving.begin()
_gevent = _server["worker"] == "gevent"
_unix = _server["bind"].startswith("unix:")

wsgi_app = "proxy.app:create_app()"
proc_name = "lockgate"
bind = _server["bind"]
workers = _server["workers"]

# gunicorn's own gthread lingers up to 2 s on its main thread for each connection it closes, and cannot say 503.
worker_class = "proxy.worker_gevent.GeventWorker" if _gevent else "proxy.worker.ThreadWorker"
threads = 1 if _gevent else _server["threads"]

# gevent: the requests in flight. Threads: the connections that rest between two requests, which cost no thread.
worker_connections = _server["threads"] if _gevent else max(1000, 2 * _server["threads"])

# Room for a burst; what does not find a thread is answered 503 rather than left waiting here.
backlog = 512

# Seconds without a sign of life from a worker, not the limit of a request: streams of any length live.
timeout = 60

# How long streams may finish when a worker is replaced. The master is busy for as long during a reload: not 600.
graceful_timeout = 120

# As long as nginx keeps a connection to its upstream.
keepalive = 75

# A worker that reaches the limit stops accepting at once and is replaced only when its last stream has ended.
max_requests = 0

# Connections, threads and locks made before the fork break after it; the shared memory saved is 10 of 35 MB.
preload_app = False

# The file by which workers show that they live: on a disk, writing it can block.
worker_tmp_dir = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None

# gunicorn opens one in the home directory by default; unknown to some versions, which ignore the setting.
control_socket_disable = True

# HTTP/2 is nginx's; gunicorn's is beta.
http_protocols = "h1"

# No header may set SCRIPT_NAME or PATH_INFO, whoever sends it.
forwarder_headers = ""

# Who may say X-Forwarded-Proto: nobody, or nginx on this machine.
forwarded_allow_ips = "127.0.0.1,::1" if _server["proxied"] else ""

# ProxyFix alone decides; gunicorn would believe any peer of a unix socket, and refuse headers that disagree.
secure_scheme_headers = {}

# Access tokens with many groups are longer than the 8190 bytes that are usual.
limit_request_field_size = 32768

# The most that gunicorn takes.
limit_request_line = 8190

# A unix socket must be writable for nginx, through its group; nothing else that is made is for others.
umask = 0o007 if _unix else 0o077

# The journal and the plugin request_log say more, after the last byte and not at the first.
accesslog = None
errorlog = "-"


def on_starting(server):
    """Before the socket is bound: the database, the copy for workers, the first key."""
    serving.start(server, _flight)


def on_exit(server):
    """When the master ends."""
    serving.stop()


def post_fork(server, worker):
    """In each new worker."""
    serving.forgive(server, worker)


def pre_fork(server, worker):
    # A collection writes to every object that it looks at, and so unshares the master's memory in each worker.
    gc.freeze()


def post_worker_init(worker):
    worker.wsgi.extensions["lockgate"].metrics.serve(worker)
    # What a worker has when it begins to serve, it has until it ends: no collection needs to look at it again.
    gc.collect()
    gc.freeze()
    # A request makes some hundreds of objects and none of them is part of a circle: looking every 700 is too often.
    gc.set_threshold(10_000, 10, 10)
