"""Django's own list of what a site on the open network must have set, with the variables that README.md names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, clean_environment


def test_a_site_with_the_documented_variables_has_no_warning(tmp_path: Path):
    environment = {
        **clean_environment(),
        "LORA_DATA_DIR": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",  # its address alone decides that the site is a real one
        "SECRET_KEY": "abcdefghij" * 6,
        "HTTPS": "true",
        "ALLOWED_HOSTS": "lora.example",
        "CSRF_TRUSTED_ORIGINS": "https://lora.example",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout
