# Here, so that every process that loads Django loads the Celery app too: without it a `delay()` in the
# web process goes to a broker on a default address, that is nowhere.
from config.celery import app as celery_app

__all__ = ["celery_app"]
