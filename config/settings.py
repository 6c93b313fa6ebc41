"""Every setting, read from the environment; nothing else reads it. With none set, the embedded defaults hold:
SQLite and files below `var/`, the broker that `dev.py up` starts, debug off.

`docs/configuration.md` lists the variables for people.
"""

import logging
import os
from pathlib import Path
from typing import Any

from csp.constants import NONCE
from django.core.exceptions import ImproperlyConfigured
from environs import Env, validate

env = Env()
at_least_1, at_least_0 = validate.Range(min=1), validate.Range(min=0)
ROOT = Path(__file__).resolve().parent.parent

# --- Where things are ----------------------------------------------------------------------------------
DATA_DIR = Path(env.str("LORA_DATA_DIR", str(ROOT / "var"))).absolute()
DATA_DIR.mkdir(parents=True, exist_ok=True)
DEBUG = env.bool("LORA_DEBUG", False)
IS_EMBEDDED = env.str("DATABASE_URL", "") == ""


def _secret_key() -> str:
    """The key from the environment, or one made once and kept beside the embedded database."""
    given = env.str("SECRET_KEY", "")
    if given:
        return given
    if not IS_EMBEDDED:
        raise ImproperlyConfigured(
            "Set SECRET_KEY: a random text of at least 50 characters, the same for web and workers."
        )
    from django.core.management.utils import get_random_secret_key

    path = DATA_DIR / "secret-key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(get_random_secret_key())
    return path.read_text()


SECRET_KEY = _secret_key()
# Lists are taken without the blanks that people write after commas: " 127.0.0.1" is no host's name.
# Keys of before: what they signed and sealed still holds, and nothing new is made with them.
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", [], subcast=str.strip)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"], subcast=str.strip)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [], subcast=str.strip)
HTTPS = env.bool("HTTPS", False)
# Off, since a browser inside of a network reaches what the pages from outside that it shows must not read.
OPEN_TO_OTHER_SITES = env.bool("OPEN_TO_OTHER_SITES", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "web.views.csrf_failure"

# --- Apps ------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "web",
    "registry",
    "compose",
    "config.administration.AdministrationConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sitemaps",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "csp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "web.middleware.CompressPagesMiddleware",
    "web.middleware.RequestIdMiddleware",
    "web.metrics.MetricsMiddleware",
    "web.cross_origin.CrossOriginMiddleware",
    "web.middleware.ConditionalApiMiddleware",
    "csp.middleware.CSPMiddleware",
    "web.first_visit.InlineStylesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "web.middleware.BodyLengthMiddleware",
    "web.middleware.ConditionalWritesMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "web.middleware.WayBackMiddleware",
    "web.middleware.DomainErrorMiddleware",
    "web.middleware.OwnFormMiddleware",
    "web.middleware.NulMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False  # a redirect instead of a 404 confuses scripts and the Hub's clients
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-gb"
LOCALE_PATHS = [ROOT / "locale"]  # what django-allauth says, in our words
TIME_ZONE = "UTC"

# --- Database ----------------------------------------------------------------------------------------------
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATA_DIR / "db.sqlite3"),
        "CONN_MAX_AGE": 60,
    }
    if IS_EMBEDDED
    # Kept for good, and looked at before each use: a Postgres whose own disk is full may take no new connection, but it
    # goes on answering by those it has.
    else env.dj_db_url("DATABASE_URL", conn_max_age=None, conn_health_checks=True)
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # WAL lets readers pass the writer, IMMEDIATE makes writers queue for the timeout: a deferred transaction
    # that turns into a writer fails at once with "database is locked", whatever the timeout.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }
else:
    DATABASES["default"]["ENGINE"] = "web.postgres"
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = env.bool("DATABASE_POOL", False)
    if DATABASES["default"]["OPTIONS"]["pool"]:
        DATABASES["default"]["CONN_MAX_AGE"] = 0
    if env.bool("DATABASE_PREPARED", True):
        # Planning took Postgres longer than answering, and filling in values took us longer than sending them.
        DATABASES["default"]["OPTIONS"] |= {"server_side_binding": True, "prepare_threshold": 3}

# --- Broker and cache --------------------------------------------------------------------------------------
# A Redis address serves both; RabbitMQ can take the broker's part.
REDIS_URL = env.str("REDIS_URL", "")
CELERY_BROKER_URL = env.str("BROKER_URL", "") or REDIS_URL or "memory://"
if REDIS_URL:
    CACHES: dict[str, dict[str, Any]] = {
        "default": {
            "BACKEND": "web.cache.ForgivingRedisCache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        }
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_PUBLISH_RETRY = False  # the sweep rings again; a submit never waits for the broker
CELERY_BROKER_CONNECTION_TIMEOUT = 2
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A broker that refuses is asked once: workers come back to it by themselves, and a submit goes on without it.
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {"max_retries": 0}
if "redis" in CELERY_BROKER_URL:
    # Long against every job, so that Redis never hands a running job to a second worker; a lost worker is the
    # sweep's business, not the broker's.
    CELERY_BROKER_TRANSPORT_OPTIONS |= {"visibility_timeout": 24 * 3600, "socket_connect_timeout": 2}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_ROUTES = {"compose.tasks.run_composition": {"queue": "compositions"}}
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    "sweep-compositions": {"task": "compose.tasks.sweep_compositions", "schedule": 5.0},
    "sweep-hub-jobs": {"task": "registry.tasks.sweep_hub_jobs", "schedule": 10.0},
    "sweep-storage": {"task": "registry.tasks.sweep_storage", "schedule": 3600.0},
    "forget-texts": {"task": "compose.tasks.forget_texts", "schedule": 3600.0},
    "announce-compositions": {"task": "compose.tasks.announce", "schedule": 10.0},
    "deliver-webhooks": {"task": "registry.tasks.deliver_webhooks", "schedule": 10.0},
    "tell-news": {"task": "registry.tasks.tell_news", "schedule": 600.0},
    "draw-weights": {"task": "registry.tasks.draw_weights", "schedule": 20.0},
    "recheck-adapters": {"task": "registry.tasks.recheck_adapters", "schedule": 30.0},
    "refresh-standing": {"task": "compose.tasks.refresh_standing", "schedule": 600.0},
}

# --- Files ---------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", str(DATA_DIR / "static"))
STATICFILES_DIRS = [ROOT / "static"]
# By the hash in its name; left to itself, WhiteNoise asks for files that never were, and the log would name them missing.
WHITENOISE_IMMUTABLE_FILE_TEST = r"\.[0-9a-f]{12}\.\w+$"
S3_BUCKET = env.str("S3_BUCKET", "")
_BLOBS_ON_S3 = {
    "BACKEND": "storages.backends.s3.S3Storage",
    "OPTIONS": {
        "bucket_name": S3_BUCKET,
        "endpoint_url": env.str("S3_ENDPOINT_URL", None),
        "region_name": env.str("S3_REGION", None),
        "access_key": env.str("S3_ACCESS_KEY_ID", None),
        "secret_key": env.str("S3_SECRET_ACCESS_KEY", None),
        "signature_version": "s3v4",
        # `bucket.host` names exist only at the big clouds; a store of one's own speaks `host/bucket`.
        "addressing_style": env.str(
            "S3_ADDRESSING_STYLE", "path" if env.str("S3_ENDPOINT_URL", "") else "auto"
        ),
        "file_overwrite": True,
        "querystring_expire": 3600,
    },
}
_BLOBS_ON_DISK = {
    "BACKEND": "django.core.files.storage.FileSystemStorage",
    "OPTIONS": {"location": str(DATA_DIR / "blobs")},
}


def _static_storage() -> str:
    """Hashed names, so that browsers keep files for ever; compressed (a slow start) only where there is a network."""
    if DEBUG:
        return "django.contrib.staticfiles.storage.StaticFilesStorage"
    if IS_EMBEDDED:
        return "web.static_files.HashedFiles"
    return "web.static_files.CompressedHashedFiles"


STORAGES: dict[str, dict[str, Any]] = {
    "default": _BLOBS_ON_S3 if S3_BUCKET else _BLOBS_ON_DISK,
    "blobs": _BLOBS_ON_S3 if S3_BUCKET else _BLOBS_ON_DISK,
    "staticfiles": {"BACKEND": _static_storage()},
}
# Temporary files lie beside the blobs, so that putting one in its place is a rename.
UPLOAD_TMP_DIR = DATA_DIR / "tmp"
UPLOAD_TMP_DIR.mkdir(parents=True, exist_ok=True)
FILE_UPLOAD_TEMP_DIR = str(UPLOAD_TMP_DIR)
FILE_UPLOAD_HANDLERS = ["registry.uploads.HashingUploadHandler"]
FILE_UPLOAD_PERMISSIONS = 0o640
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
DATA_UPLOAD_MAX_NUMBER_FILES = 200
WORKER_CACHE_DIR = Path(env.str("LORA_WORKER_CACHE_DIR", str(DATA_DIR / "worker-cache")))
# How long an address for sending a file, or a token for Xet, holds; longer than any upload takes.
HUB_TICKET_S = 12 * 3600
# For a proxy that takes small bodies only: Git LFS in parts of this many bytes; 0 for whole files.
LFS_PART_BYTES = env.int("LFS_PART_BYTES", 0, validate=at_least_0)
X_ACCEL_REDIRECT_PREFIX = env.str("X_ACCEL_REDIRECT_PREFIX", "")
# Send people straight to the object store. Off, since its address may mean nothing outside our own network.
S3_SIGNED_DOWNLOADS = env.bool("S3_SIGNED_DOWNLOADS", False)

# --- Limits, published on /docs/limits -------------------------------------------------------------------------
MAX_FILE_BYTES = env.int("MAX_FILE_BYTES", 2 * 1024**3, validate=at_least_1)
MAX_ADAPTER_BYTES = env.int("MAX_ADAPTER_BYTES", 5 * 1024**3, validate=at_least_1)
MAX_FILES_PER_ADAPTER = 100
# What one person or organisation may keep, 0 for no limit; many modules at once are what scripts gone wild leave.
MAX_ADAPTERS_PER_NAMESPACE = env.int("MAX_ADAPTERS_PER_NAMESPACE", 5000, validate=at_least_0)
MAX_BYTES_PER_NAMESPACE = env.int("MAX_BYTES_PER_NAMESPACE", 0, validate=at_least_0)
# What one account may have sent for commits that it has not made; Xet holds an upload twice until then. 0 for no limit.
MAX_UNCOMMITTED_BYTES = env.int("MAX_UNCOMMITTED_BYTES", 4 * MAX_ADAPTER_BYTES, validate=at_least_0)
if 0 < MAX_UNCOMMITTED_BYTES < 2 * MAX_ADAPTER_BYTES:
    raise ImproperlyConfigured(
        f"MAX_UNCOMMITTED_BYTES is {MAX_UNCOMMITTED_BYTES} and MAX_ADAPTER_BYTES {MAX_ADAPTER_BYTES}: an adapter of that size "
        "could not be sent. Take twice as much, or 0 for no limit."
    )
MAX_TASKS_PER_NAMESPACE = env.int("MAX_TASKS_PER_NAMESPACE", 200, validate=at_least_0)
MAX_TASK_REVISIONS_PER_DAY = env.int("MAX_TASK_REVISIONS_PER_DAY", 30, validate=at_least_0)
MIN_FREE_DISK_BYTES = env.int("MIN_FREE_DISK_BYTES", 512 * 1024**2, validate=at_least_0)
MIN_FEW_SHOT_EXAMPLES = 2
MAX_FEW_SHOT_EXAMPLES = 100
MAX_TEST_EXAMPLES = 2000
MAX_EXAMPLE_BYTES = 32 * 1024
MAX_EXAMPLE_SET_BYTES = 8 * 1024**2
MAX_JSON_BYTES = 3 * MAX_EXAMPLE_SET_BYTES  # a letter of two bytes may be written as six: \u00e9
MIN_TASK_ROWS = 15  # with different inputs
MIN_TASK_HIDDEN_ROWS = 10
MAX_TASK_BYTES = 2 * 1024**2
MAX_CANDIDATES = 200
MAX_BUDGET = 2000
MAX_WAITING_JOBS_PER_USER = env.int("MAX_WAITING_JOBS_PER_USER", 10, validate=at_least_1)
MAX_RUNNING_JOBS_PER_USER = env.int("MAX_RUNNING_JOBS_PER_USER", 2, validate=at_least_1)
MAX_SCORED_PER_TASK_PER_DAY = env.int("MAX_SCORED_PER_TASK_PER_DAY", 50, validate=at_least_1)

# --- Jobs ---------------------------------------------------------------------------------------------------------
JOB_LEASE_S = env.int("JOB_LEASE_S", 60, validate=at_least_1)
JOB_HEARTBEAT_S = env.int("JOB_HEARTBEAT_S", 5, validate=at_least_1)
if JOB_HEARTBEAT_S >= JOB_LEASE_S:
    raise ImproperlyConfigured(
        f"JOB_HEARTBEAT_S is {JOB_HEARTBEAT_S} and JOB_LEASE_S {JOB_LEASE_S}: a worker would lose each job between two beats. "
        "Take a lease of several beats."
    )
JOB_RING_AGAIN_S = env.int("JOB_RING_AGAIN_S", 15, validate=at_least_1)
JOB_MAX_ATTEMPTS = 3
# Days after its end for which a composition keeps the texts it was given and what it wrote; 0: for ever.
FEW_SHOT_KEPT_DAYS = env.int("FEW_SHOT_KEPT_DAYS", 365, validate=at_least_0)
# Days after its end for which an import or a push is listed; 0: for ever.
HUB_JOBS_KEPT_DAYS = env.int("HUB_JOBS_KEPT_DAYS", 365, validate=at_least_0)
# What a worker keeps on its disk of base models and of what lies in an object store; 0 for as much as the disk has room for.
WORKER_CACHE_BYTES = env.int("WORKER_CACHE_BYTES", 100 * 1024**3, validate=at_least_0)
ENGINE_CACHE_BYTES = env.int("ENGINE_CACHE_BYTES", 4 * 1024**3, validate=at_least_0)
HUB_ENDPOINT = env.str(
    "HUB_ENDPOINT", ""
)  # where referenced base models come from; empty: huggingface_hub's own
# Receivers of webhooks in our own network; all others are called by https at public addresses only.
WEBHOOK_TRUSTED_ORIGINS: list[str] = env.list("WEBHOOK_TRUSTED_ORIGINS", [], subcast=str.strip)
# The hubs that adapters may be imported from, the usual one first.
IMPORT_ENDPOINTS = [
    endpoint.rstrip("/")
    for endpoint in env.list("IMPORT_ENDPOINTS", ["https://huggingface.co"], subcast=str.strip)
]
# The hubs that people may push adapters to, with their own token there.
PUSH_ENDPOINTS = [
    endpoint.rstrip("/") for endpoint in env.list("PUSH_ENDPOINTS", IMPORT_ENDPOINTS, subcast=str.strip)
]
# A proxy that all fetching of imports goes through; it then decides which addresses may be reached.
IMPORT_PROXY = env.str("IMPORT_PROXY", "")
MAX_HUB_JOBS_PER_USER = env.int("MAX_HUB_JOBS_PER_USER", 5, validate=at_least_0)
# How long a person's token for another Hub is kept, sealed, for a job that has not ended.
HUB_TOKEN_KEPT_S = 24 * 3600

# --- People ---------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "registry.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_EMAIL_VERIFICATION = env.str("ACCOUNT_EMAIL_VERIFICATION", "none")
# Where an address is confirmed before anybody gets in, nobody is told whose it is (`registry.account_forms`). Elsewhere a
# new account is used at once, so that an address which is taken has to be refused.
HIDES_WHOSE_ADDRESS = ACCOUNT_EMAIL_VERIFICATION == "mandatory"
ACCOUNT_PREVENT_ENUMERATION = "strict" if HIDES_WHOSE_ADDRESS else True
ACCOUNT_SIGNUP_FIELDS = [
    "username*",
    "email*" if HIDES_WHOSE_ADDRESS else "email",
    "password1*",
    "password2*",
]
# Who opens the link of that mail in the browser that signed up is in, and where they were going; in another they sign in.
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_FORMS = {
    "add_email": "registry.account_forms.AddAddressForm",
    "signup": "registry.account_forms.SignUpForm",
}
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[LoRA Commons] "
ACCOUNT_ADAPTER = "registry.accounts.AccountAdapter"
# What a change of sign-in asks for; not a code by mail, which whoever found the mailbox open has as well.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_METHODS = {"password", "mfa"}
# Failures are counted by address and by account; a browser that signed in to the account before has a count of its
# own (`registry.accounts`), so nobody is locked out by strangers. Forms that send mail are counted as well.
ACCOUNT_RATE_LIMITS = {
    "login_failed": "10/5m/ip,10/5m/key",
    "signup": "20/h/ip",
    "reset_password": "20/h/ip,5/d/key",
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "LoRA Commons"
# A code typed as it changes, or by a phone half a minute slow, is still right (RFC 6238, 5.2); each is good once.
MFA_TOTP_TOLERANCE = 1
MFA_ALLOW_UNVERIFIED_EMAIL = True  # most sites at home have no mail
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS  # browsers themselves allow passkeys only on localhost then
# Sign-in by an OpenID Connect server: present once its address is set.
OIDC_ISSUER = env.str("OIDC_ISSUER", "")
SOCIALACCOUNT_PROVIDERS = (
    {
        "openid_connect": {
            "OAUTH_PKCE_ENABLED": True,
            "APPS": [
                {
                    "provider_id": "oidc",
                    "name": env.str("OIDC_NAME", "your organisation"),
                    "client_id": env.str("OIDC_CLIENT_ID"),
                    "secret": env.str("OIDC_CLIENT_SECRET"),
                    "settings": {"server_url": OIDC_ISSUER},
                }
            ],
        }
    }
    if OIDC_ISSUER
    else {}
)
SOCIALACCOUNT_AUTO_SIGNUP = False  # a new person chooses the name that they will publish under
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False  # an address that some server claims opens no account that is here
SOCIALACCOUNT_ADAPTER = "registry.accounts.OtherServerAdapter"
SIGN_UP_OPEN = env.bool("SIGN_UP_OPEN", True)
# Whether whoever that server knows may make an account here; where only they may, SIGN_UP_OPEN is false and this is true.
OIDC_SIGN_UP_OPEN = env.bool("OIDC_SIGN_UP_OPEN", SIGN_UP_OPEN)
ACCOUNT_USERNAME_MIN_LENGTH = 2
EMAIL_HOST = env.str("EMAIL_HOST", "")
EMAIL_PORT = env.int("EMAIL_PORT", 587, validate=at_least_1)
EMAIL_HOST_USER = env.str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.str("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_SSL = env.bool("EMAIL_USE_SSL", False)
EMAIL_USE_TLS = env.bool("EMAIL_USE_TLS", not EMAIL_USE_SSL)
EMAIL_TIMEOUT = 10
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "LoRA Commons <noreply@localhost>")

# --- REST -------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "registry.authentication.BearerAuthentication",
        "registry.authentication.PageSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["registry.authentication.ReadOrSignedIn"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["web.parsers.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "web.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "web.api_schema.Schema",
    "DEFAULT_THROTTLE_CLASSES": ["web.throttles.ClientThrottle"],
    "EXCEPTION_HANDLER": "web.api_errors.handle",
    "PAGE_SIZE": 20,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
# Fixed windows, of REST and of the Hub protocol each by itself, told in RateLimit headers. Files have a budget of their own,
# since one snapshot asks for many.
_FILES = env.str("THROTTLE_FILES", "5000/5m")
REQUEST_RATES = {
    "api": {
        "anonymous": env.str("THROTTLE_ANONYMOUS", "500/5m"),
        "user": env.str("THROTTLE_USER", "1000/5m"),
    },
    "resolvers": {"anonymous": _FILES, "user": _FILES},
}
SPECTACULAR_SETTINGS = {
    "TITLE": "LoRA Commons API",
    "DESCRIPTION": "Publish, find, compose and download LoRA modules. Send your token as `Authorization: Bearer lr_…`.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "AdapterKind": "registry.models.Adapter.Kind",
        "CompositionStatus": "compose.models.Composition.Status",
        "ErrandStatus": "compose.models.Errand.Status",
        "BaseModelKind": "registry.models.BaseModel.Kind",
        "NamespaceKind": "registry.models.Namespace.Kind",
        "MembershipRole": "registry.models.Membership.Role",
    },
}

# --- Browser policy ---------------------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'", NONCE],  # of the first page somebody sees: web/first_visit.py
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}


# --- Logs ---------------------------------------------------------------------------------------------------------------
LOG_FORMAT = env.str("LOG_FORMAT", "line" if IS_EMBEDDED else "json")
# Whoever sends it as a bearer token may read /metrics; without it there is no such page.
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
METRICS_DIR = str(DATA_DIR / "metrics") if METRICS_TOKEN else ""
if METRICS_DIR:
    # prometheus_client reads this when it is imported: where the web processes put their figures together.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = METRICS_DIR
    Path(METRICS_DIR).mkdir(parents=True, exist_ok=True)


_BY_THE_CLOCK = tuple(str(entry["task"]) for entry in CELERY_BEAT_SCHEDULE.values())


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """All but the coming and going of what the clock rings for, some of it every five seconds."""
    if record.levelno > logging.INFO or not record.name.startswith("celery"):
        return True
    message = record.getMessage()
    return not any(task in message for task in _BY_THE_CLOCK)


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "web.logs.LineFormatter"},
        "json": {"()": "web.logs.ObjectFormatter"},
    },
    "filters": {
        "worth_a_line": {"()": "django.utils.log.CallbackFilter", "callback": _is_worth_a_line},
        "context": {"()": "web.logs.ContextFilter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["worth_a_line", "context"],
        }
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},  # its lines hold addresses, and signed ones are secrets
    },
}
