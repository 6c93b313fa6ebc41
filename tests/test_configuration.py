"""The settings as people meet them: what is documented, and what refuses to start."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, clean_environment

PRODUCTION = {"DATABASE_URL": "postgres://nobody@127.0.0.1/nothing"}


def test_every_variable_that_the_settings_read_is_documented_and_no_other():
    read = set(re.findall(r"env\.\w+\(\s*\"(\w+)\"", (ROOT / "config" / "settings.py").read_text()))
    rows = [
        line
        for line in (ROOT / "docs" / "configuration.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    documented = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row.split("|")[1])}
    assert documented == read


SHOWN = "from django.conf import settings as s; print(s.DATABASES['default']['OPTIONS'], s.STORAGES['blobs'])"


def settings_with(tmp_path, show: str = SHOWN, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", show],
        cwd=ROOT,
        env={
            **clean_environment(),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LORA_DATA_DIR": str(tmp_path),
            **variables,
        },
        capture_output=True,
        text=True,
    )


def test_a_real_site_without_a_secret_key_does_not_start_and_says_why(tmp_path):
    done = settings_with(tmp_path, **PRODUCTION)
    assert done.returncode != 0
    assert "Set SECRET_KEY: a random text of at least 50 characters" in done.stderr


def test_an_embedded_site_makes_a_key_once_that_only_its_owner_reads(tmp_path):
    assert settings_with(tmp_path).returncode == 0
    key = tmp_path / "secret-key"
    made = key.read_text()
    assert settings_with(tmp_path).returncode == 0
    assert key.read_text() == made
    assert key.stat().st_mode & 0o077 == 0


def test_sqlite_gets_write_ahead_log_and_immediate_transactions(tmp_path):
    shown = settings_with(tmp_path).stdout
    assert "IMMEDIATE" in shown
    assert "journal_mode=WAL" in shown


@pytest.mark.parametrize(("endpoint", "style"), [("http://objects:8333", "path"), ("", "auto")])
def test_a_bucket_of_ones_own_is_addressed_by_path(tmp_path, endpoint: str, style: str):
    shown = settings_with(
        tmp_path, S3_BUCKET="b", **({"S3_ENDPOINT_URL": endpoint} if endpoint else {})
    ).stdout
    assert f"'addressing_style': '{style}'" in shown


def test_blanks_after_the_commas_of_a_list_mean_nothing(tmp_path):
    lists = {
        "SECRET_KEY_FALLBACKS": "a, b",
        "ALLOWED_HOSTS": "lora.example, 127.0.0.1",
        "CSRF_TRUSTED_ORIGINS": "https://lora.example, https://b.example",
        "WEBHOOK_TRUSTED_ORIGINS": "http://a:1, http://b:2",
        "IMPORT_ENDPOINTS": "https://a.example/, https://b.example/",
    }
    names = [*lists, "PUSH_ENDPOINTS"]
    show = f"from django.conf import settings as s; print(*(each for name in {names} for each in getattr(s, name)), sep='|')"
    done = settings_with(tmp_path, show, **lists)
    assert done.returncode == 0, done.stderr
    assert "|127.0.0.1|" in done.stdout
    assert " " not in done.stdout


def test_a_variable_that_is_set_to_nothing_is_one_that_is_not_set(tmp_path):
    nothing = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "S3_BUCKET", "CSRF_TRUSTED_ORIGINS", "EMAIL_HOST")
    done = settings_with(tmp_path, **dict.fromkeys(nothing, ""))
    assert done.returncode == 0, done.stderr
    assert "IMMEDIATE" in done.stdout


@pytest.mark.parametrize(
    ("given", "port", "starttls", "tls"),
    [
        ({}, 587, True, False),
        ({"EMAIL_USE_SSL": "true", "EMAIL_PORT": "465"}, 465, False, True),
        ({"EMAIL_USE_TLS": "false", "EMAIL_PORT": "25"}, 25, False, False),
    ],
)
def test_a_mail_server_is_spoken_to_as_it_speaks(tmp_path, given, port, starttls, tls):
    show = "from django.core.mail import get_connection as c; m = c(); print(m.port, m.use_tls, m.use_ssl)"
    done = settings_with(tmp_path, show, EMAIL_HOST="mail.example", **given)
    assert done.stdout.split() == [str(port), str(starttls), str(tls)], done.stderr


def test_what_the_key_of_before_signed_and_sealed_still_holds(tmp_path):
    old, new = "o" * 60, "n" * 60
    imports = "from django.core import signing; from registry.sealing import seal, unseal;"
    make = f"{imports} print(signing.dumps('ticket'), seal('hf_token', purpose='test'))"
    signed, sealed = settings_with(tmp_path, make, SECRET_KEY=old).stdout.split()
    read = f"{imports} print(unseal({sealed!r}, purpose='test', kept_s=600), signing.loads({signed!r}))"
    assert "BadSignature" in settings_with(tmp_path, read, SECRET_KEY=new).stderr
    done = settings_with(tmp_path, read, SECRET_KEY=new, SECRET_KEY_FALLBACKS=f"{'x' * 60},{old}")
    assert done.stdout.split() == ["hf_token", "ticket"], done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"MAX_SCORED_PER_TASK_PER_DAY": "0"}, '"MAX_SCORED_PER_TASK_PER_DAY" invalid'),
        ({"MAX_BYTES_PER_NAMESPACE": "-1"}, '"MAX_BYTES_PER_NAMESPACE" invalid'),
        ({"MAX_UNCOMMITTED_BYTES": "1000"}, "an adapter of that size could not be sent"),
        ({"JOB_LEASE_S": "60", "JOB_HEARTBEAT_S": "60"}, "a worker would lose each job between two beats"),
    ],
)
def test_a_number_that_nothing_could_work_with_is_refused_at_the_start(tmp_path, given, told):
    done = settings_with(tmp_path, **given)
    assert done.returncode != 0
    assert told in done.stderr


def test_no_limit_is_said_by_nought_where_there_may_be_none(tmp_path):
    given = {"MAX_BYTES_PER_NAMESPACE": "0", "FEW_SHOT_KEPT_DAYS": "0", "LFS_PART_BYTES": "0"}
    assert settings_with(tmp_path, **given).returncode == 0
