"""Before a web process takes its first request: everything is imported, compiled and read."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connections

from registry.models import Adapter
from web.few_at_once import Application

logger = logging.getLogger(__name__)

PAGES = ["/", "/modules", "/status", "/api/v1/adapters/"]


def warm(application: Application) -> None:
    """Ask the application for its busiest pages as a guest would. Whatever goes wrong is for real requests to meet."""
    try:
        newest = Adapter.objects.visible_to(None).select_related("namespace").order_by("-pk").first()
        for path in [*PAGES, *([newest.get_absolute_url()] if newest else [])]:
            _ask(application, path)
    except Exception:
        logger.warning("The web process begins cold.", exc_info=True)
    finally:
        connections.close_all()  # of this thread, which takes no requests


def _ask(application: Application, path: str) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None, /) -> Callable[[bytes], object]:
        logger.debug("%s %s", status, path)
        return lambda body: None

    host = next((name for name in settings.ALLOWED_HOSTS if not name.startswith(("*", "."))), "localhost")
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host, "SERVER_PORT": "443", "HTTP_HOST": host, "HTTP_X_FORWARDED_PROTO": "https",
        "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
    }  # fmt: skip
    response = application(environ, start_response)
    response.close()
