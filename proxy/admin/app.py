"""create_app: the admin application, and what its requests share."""

from __future__ import annotations

import logging

from flask import Flask, Response
from prometheus_client import CollectorRegistry, generate_latest
from werkzeug.exceptions import HTTPException

from proxy import config
from proxy.admin import api
from proxy.admin.keys import AdminKeys
from proxy.admin.lag import Lag
from proxy.admin.readiness import Readiness
from proxy.errors import Reject
from proxy.metrics.scrape import Scrape
from proxy.records.database import Database, location
from proxy.records.history import History
from proxy.settings import Settings

log = logging.getLogger("lockgate.admin")


class Admin:
    """What one process of the admin application holds; make it after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = AdminKeys(settings)
        self.database = Database(location(settings))
        self.history = History(lambda: self.database, settings.server.state / "journal")
        scrape = Scrape(settings.server.state / "metrics")
        self.readiness = Readiness(settings, scrape)
        self._metrics = CollectorRegistry(auto_describe=False)
        self._metrics.register(scrape)
        self._metrics.register(Lag(settings.server.state))

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._metrics)


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application; without `settings` the configuration is read. Raises `ConfigError`."""
    if settings is None:
        settings, _ = config.assemble(config.locate())
    app = Flask("lockgate.admin", static_folder=None)
    app.extensions["lockgate"] = Admin(settings)
    app.register_blueprint(api.blueprint)
    app.register_error_handler(Reject, _refused)
    app.register_error_handler(HTTPException, _unknown)
    app.register_error_handler(Exception, _failed)
    return app


def _refused(reject: Reject) -> Response:
    return Response(reject.encoded(), reject.status, reject.headers, mimetype=api.JSON)


def _unknown(error: HTTPException) -> Response:
    return _refused(Reject(error.code or 500, None, error.description or "The request failed."))


def _failed(error: Exception) -> Response:
    if isinstance(error, Database.failures):
        log.warning("the database failed: %s", type(error).__name__)
        return _refused(Reject(503, "database_unavailable", "The ledger cannot be read at the moment."))
    log.error("an admin request failed", exc_info=error)
    return _refused(Reject(500, "internal_error", "The admin application failed; its log says more."))
