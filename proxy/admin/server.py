"""gunicorn's settings for the admin application; the address is given by `lockgate admin`."""

import pathlib
import sys

# Before the working directory, where some other `proxy` may lie.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
from proxy.serving import address  # noqa: F401 - binds the name `proxy` to this package

del sys.path[0]

wsgi_app = "proxy.admin.app:create_app()"
proc_name = "lockgate-admin"

# One process with few threads: monitoring asks seldom, and what it asks costs milliseconds.
workers = 1
threads = 8
worker_class = "proxy.worker.ThreadWorker"
worker_connections = 100
backlog = 64
keepalive = 75
timeout = 60
graceful_timeout = 5
worker_tmp_dir = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
control_socket_disable = True
http_protocols = "h1"
forwarder_headers = ""
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
umask = 0o077
accesslog = None
errorlog = "-"
