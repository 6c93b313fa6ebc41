import os

from django.core.wsgi import get_wsgi_application

from web.few_at_once import FewAtOnce

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Chosen by `python -m benchmarks.load`: docs/reliability.md.
AT_ONCE = 4

application = FewAtOnce(get_wsgi_application(), most=AT_ONCE)
