"""Django's own backend for Postgres, whose prepared statements are given up after an error. Django asks for `base` in here."""
