"""The doorbell: Celery carries the id of a job, and the job's row in the database is the truth."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("lora_commons")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
