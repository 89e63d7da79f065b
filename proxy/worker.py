"""The gunicorn worker of Lockgate: a connection is taken, served and closed by one free thread.

All free threads wait on one epoll, which holds the listeners and the connections that are between two requests, so
the kernel is the queue and nothing is accepted that cannot be served. Silent clients and unfinished request heads
rest in that epoll and hold no thread. The main thread only keeps time, and is the doorman while no thread is free.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker

from proxy.connection import Answer, Connection
from proxy.doorman import FAILED, FULL, SLOW, Doorman, check_head, explain
from proxy.lobby import Lobby

LOOK_S = 0.002
"""How often the doorman looks at what waits while no thread is free."""

LOOKS = 8
"""After how many further looks the doorman acts."""

STOP_LINGER_S = 1.0
"""How long a worker that stops keeps idle connections: their clients may be sending already."""

STACK_BYTES = 2 << 20
"""With 1 MiB a recursion through `sorted(key=…)` kills the process before Python's own limit raises RecursionError."""

# The client has gone, or was given up. ConnectionResetError is also how an application cuts its answer.
GONE = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class ThreadWorker(Worker):  # type: ignore[misc]
    """Serves HTTP/1 on up to `threads` threads, and answers 503 when they are all busy.

    `worker_connections` bounds the connections that rest; beyond it the one that rests longest is closed.
    Limits of one client, in seconds: `head_s` for a whole request head, `receive_s` for each read of a body and
    `send_s` for each write.
    """

    head_s = 10.0
    receive_s = 15.0
    send_s = 30.0
    alive: bool
    busy = turned_away = 0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise RuntimeError, which gunicorn prints, for settings that this worker does not serve."""
        if cfg.is_ssl:
            raise RuntimeError("certfile, keyfile: this worker does not speak TLS; let nginx terminate it")
        if "h2" in cfg.http_protocols or cfg.http2_cleartext != "off":
            raise RuntimeError("http_protocols, http2_cleartext: this worker speaks HTTP/1 only")

    def run(self) -> None:
        """Serve until told to stop, then answer what is in flight."""
        # Settings no longer change; found as attributes they cost a tenth of what Config.__getattr__ does.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.logs_access = bool(self.log.access_log_enabled or self.cfg.statsd_host)
        self.limit = max(1, self.cfg.threads)
        self.started = 1
        self.busy = 0
        self.refused = 0
        self.seen: dict[int, int] = {}
        self.attentive = False
        self.next_look = self.next_sweep = 0.0
        self.lobby = Lobby(self.sockets, self.cfg, self.log, self.head_s, self.receive_s, self.send_s)
        self.lock = self.lobby.lock  # one for both, which each request takes twice
        self.doorman = Doorman(self.PIPE[0], self.lobby.epoll.fileno())
        threading.stack_size(STACK_BYTES)
        self.start_thread()
        self.lobby.open()
        while self.alive:
            self.turn(1.0)
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
        self.drain()

    def drain(self) -> None:
        """Stop accepting, and return when nothing is in flight or the graceful time-out has passed."""
        self.lobby.close(STOP_LINGER_S)
        now = time.monotonic()
        while self.busy or self.lobby.parked or self.doorman.lingering:
            if time.monotonic() - now > self.cfg.graceful_timeout:
                self.log.warning("Leaving with %d requests unanswered", self.busy)
                return
            self.turn(0.1)

    def turn(self, sleep_s: float) -> None:
        """One round of the main thread: heartbeat, doorman, expired connections."""
        self.notify()
        self.attentive = False  # cleared before busy is read: who fills the worker after that rings
        crowded = False
        if self.busy >= self.limit:
            self.attentive = crowded = True
            now = time.monotonic()
            if now >= self.next_look:
                self.next_look = now + LOOK_S
                crowded = self.look()
        else:
            self.seen = {}
        self.doorman.wait(LOOK_S if crowded else sleep_s, watch=self.attentive and not crowded)
        self.sweep(sleep_s)

    def look(self) -> bool:
        """Look at what waits while no thread is free, and turn away what has waited too long; tell whether any waits.

        A listener that has something at each look is one that no other worker empties: its clients are let in, so
        that the time of each is known. A client that waits at each look after that is refused. Until then it
        lies in the epoll, where a thread that becomes free takes it.
        """
        lobby = self.lobby
        seen = {fd: self.seen.get(fd, -1) + 1 for fd, _ in lobby.epoll.poll(0)}
        for fd, looks in seen.items():
            conn = lobby.parked.get(fd)
            if fd in lobby.listeners:
                while looks >= LOOKS and (new := lobby.accept(fd)):
                    lobby.park(new)
                lobby.arm(fd)
            elif conn is not None and looks < LOOKS:
                lobby.arm(fd)
            elif conn is not None and lobby.claim(conn):
                self.refused += 1
                self.doorman.see_off(conn.sock, FULL)
        self.seen = seen
        return bool(seen)

    def sweep(self, every_s: float) -> None:
        """Close connections that have rested too long; a request head that never came to its end is answered 408."""
        now = time.monotonic()
        if now < self.next_sweep:
            return
        self.next_sweep = now + every_s / 2
        for conn in self.lobby.overdue(now):
            if conn.inlet.buf.getvalue():
                self.doorman.see_off(conn.sock, SLOW)
            else:
                conn.sock.close()
        if self.refused:
            self.log.warning("The worker is full: %d requests were answered 503", self.refused)
            self.turned_away += self.refused
            self.refused = 0

    def ring(self) -> None:
        """Wake the main thread."""
        with suppress(BlockingIOError):  # so many calls lie there that it wakes anyway
            os.write(self.PIPE[1], b".")

    def start_thread(self) -> None:
        try:
            threading.Thread(target=self.labour, name="exchange", daemon=True).start()
        except RuntimeError:
            if self.started == 1:
                raise
            self.log.exception("No more than %d threads can be started", self.started - 1)
            with self.lock:
                self.started -= 1
                self.limit = self.started

    def labour(self) -> None:
        """The life of a thread: take what is ready, serve it, and start another thread first if this was the last."""
        lobby = self.lobby
        while True:
            events = lobby.epoll.poll(None, 1)
            if not events:
                continue
            fd = events[0][0]
            with self.lock:
                self.busy += 1
                conn = lobby.parked.pop(fd, None)
                last = self.busy >= self.started
                grows = last and self.started < self.limit
                self.started += grows
            if grows:
                self.start_thread()
            elif last and not self.attentive:
                self.ring()
            try:
                if conn is None:
                    conn = lobby.accept(fd)
                    lobby.arm(fd)
                if conn is not None:
                    self.serve(conn)
            except Exception:
                self.log.exception("A connection was lost")
            finally:
                with self.lock:
                    self.busy -= 1
                if not self.alive:
                    self.ring()

    def serve(self, conn: Connection) -> None:
        """Answer the requests that have come, then close the connection or let it rest."""
        try:
            while conn.inlet.has_head():
                request = next(conn.parser)
                check_head(request)
                if not self.answer(conn, request):
                    return
                conn.begun = False
            self.lobby.park(conn)
        except GONE:
            conn.sock.close()
        except Exception as error:
            answer = explain(error)
            if answer is FAILED:
                self.log.exception("Cannot read a request")
            else:
                # By its name only: its text has parts of the request, which may be a credential.
                self.log.warning("Invalid request from %s: %s", conn.client or "a unix socket", type(error).__name__)
            self.doorman.see_off(conn.sock, answer)

    def answer(self, conn: Connection, request: Request) -> bool:
        """Run the application for one request; True if the connection is ready for the next, else it is closed."""
        resp = None
        environ: dict[str, Any] = {}
        began = datetime.now() if self.logs_access else None
        try:
            self.cfg.pre_request(self, request)
            conn.inlet.proceed, request._expected_100_continue = request._expected_100_continue, False
            resp, environ = wsgi.create(request, conn.sock, conn.client, conn.server, self.cfg, Answer, (self.sheds,))
            environ["wsgi.multithread"] = True
            self.nr += 1
            if self.nr >= self.max_requests and self.alive:
                self.log.info("Autorestarting worker after current request.")
                self.alive = False
                self.ring()
            parts = self.wsgi(environ, resp.start_response)
            try:
                for part in parts:
                    resp.write(part)
                resp.close()
            finally:
                if began is not None:
                    self.log.access(resp, request, environ, datetime.now() - began)
                if hasattr(parts, "close"):
                    parts.close()
            if not resp.should_close() and conn.settle():
                return True
            self.doorman.finish(conn)
        except GONE as error:
            self.log.debug("Cut: %s", error)
            self.doorman.cut(conn, resp)
        except (Exception, SystemExit) as error:
            answer = explain(error)
            if answer is FAILED or (resp is not None and resp.headers_sent):
                self.log.exception("Error handling request %s %s", request.method, request.path)
            if resp is not None and resp.headers_sent:
                self.doorman.cut(conn, resp)
            else:
                self.doorman.see_off(conn.sock, answer)
        finally:
            try:
                self.cfg.post_request(self, request, environ, resp)
            except Exception:
                self.log.exception("Exception in post_request hook")
        return False

    def sheds(self) -> bool:
        """Tell whether answers end their connections: on leaving, and when full, as another worker may have room."""
        return not self.alive or not self.cfg.keepalive or (self.busy >= self.limit and self.cfg.workers > 1)
