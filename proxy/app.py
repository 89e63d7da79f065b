"""create_app: builds the gateway and its Flask application."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from proxy import api, client, config
from proxy.catalog import Catalog
from proxy.config.document import ACTIVE
from proxy.errors import Reject
from proxy.gateway import Gateway
from proxy.reference import routes as reference
from proxy.settings import Settings

log = logging.getLogger("lockgate")


def create_app(settings: Settings | None = None, catalog: Catalog | None = None) -> Flask:
    """Build a gateway and the application that serves it; call it in the worker, after the fork.

    Without `settings` the configuration is read: the copy that the master checked, else the file itself. Raises
    `ConfigError`.
    """
    if settings is None:
        copy = os.environ.get(ACTIVE)
        settings, catalog = config.assemble(Path(copy) if copy else config.locate())
    if catalog is None:
        catalog = Catalog.discover(settings.server.plugins_dir)
    gateway = Gateway(settings, catalog)
    gateway.start()
    app = Flask("lockgate", static_folder=None)
    app.extensions["lockgate"] = gateway
    # Never a redirect: it would be HTML, and clients turn a POST into a GET.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.register_blueprint(api.blueprint)
    if settings.server.docs:
        app.register_blueprint(reference.blueprint)
    app.register_error_handler(HTTPException, api.unknown_url)
    app.register_error_handler(Exception, _failed)
    # ProxyFix believes one proxy's forwarding headers; nginx overwrites what clients send of them.
    inner: Any = ProxyFix(app.wsgi_app, x_for=1, x_proto=1) if settings.server.proxied else app.wsgi_app

    def keep_start_response(environ: dict[str, Any], start_response: Any) -> Any:
        environ[client.START_RESPONSE] = start_response
        if "//" in environ["PATH_INFO"]:
            # A base URL with a slash at its end is the usual cause.
            environ["PATH_INFO"] = re.sub("/{2,}", "/", environ["PATH_INFO"])
        return inner(environ, start_response)

    app.wsgi_app = keep_start_response  # type: ignore[method-assign]
    return app


def _failed(error: Exception) -> Response:
    log.error("a request failed outside of any exchange", exc_info=error)
    reject = Reject(500, "internal_error", "The gateway failed; its log says more.")
    return Response(reject.encoded(), 500, mimetype="application/json")
