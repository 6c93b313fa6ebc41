"""The promises of the layout: who may import whom, who reads the environment, what the web process never loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ["config", "compose", "registry", "web"]  # each may import itself and what stands after it
HEAVY = ["torch", "transformers", "peft", "nevergrad", "scipy", "compose.engine.run", "compose.engine.bank"]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of every import in a file, `from a import b` as a and a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or node.module is None, (
                f"{path}: relative import of a name; write it in full"
            )
            package = ".".join(path.relative_to(ROOT).parent.parts)
            module = node.module or package
            yield module, id(node) not in late
            yield from ((f"{module}.{alias.name}", id(node) not in late) for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def test_imports_run_from_config_to_compose_to_registry_to_web_and_never_back():
    back = [
        f"{path.relative_to(ROOT)} imports {module}"
        for place, layer in enumerate(LAYERS)
        for path in python_files(layer)
        for module, _ in imports(path)
        if module.split(".")[0] in LAYERS[:place]
    ]
    assert back == []


def test_nobody_imports_config():
    guests = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in python_files("compose", "registry", "web", "demo")
        for module, _ in imports(path)
        if module.split(".")[0] == "config"
    ]
    assert guests == []


def test_the_engine_imports_nothing_of_django_and_nothing_of_ours_but_itself():
    strangers = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in python_files("compose/engine")
        for module, _ in imports(path)
        if module.split(".")[0] in {"django", "rest_framework", "celery", "registry", "web", "config"}
        or (module.startswith("compose.") and not module.startswith("compose.engine"))
    ]
    assert strangers == []


def test_compose_init_stays_empty_so_that_the_engine_can_be_imported_alone():
    assert (ROOT / "compose" / "__init__.py").read_text() == ""


@pytest.mark.parametrize("file", ["types.py", "errors.py", "__init__.py"])
def test_the_engine_names_its_types_and_errors_without_torch(file: str):
    modules = {module.split(".")[0] for module, _ in imports(ROOT / "compose" / "engine" / file)}
    assert modules.isdisjoint(HEAVY)


def test_only_settings_reads_the_environment():
    readers = [
        str(path.relative_to(ROOT))
        for path in python_files("config", "compose", "registry", "web")
        if path != ROOT / "config" / "settings.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
        if ast.unparse(node.value) == "os" and "setdefault" not in _line(path, node.lineno)
    ]
    assert readers == []


def _line(path: Path, number: int) -> str:
    return path.read_text(encoding="utf-8").splitlines()[number - 1]


def loaded_by(code: str) -> set[str]:
    """The modules loaded in a fresh Python after `code`."""
    show = "import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_web_process_loads_nothing_of_the_engines_weight():
    walk = """
import config.wsgi
from django.urls import get_resolver
def walk(resolver):
    for pattern in resolver.url_patterns:
        walk(pattern) if hasattr(pattern, "url_patterns") else pattern.callback
walk(get_resolver())
from django.core.checks import run_checks
run_checks()
"""
    loaded = loaded_by(walk)
    assert "registry.models" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_clock_and_the_chores_worker_load_nothing_heavy_either():
    assert loaded_by(
        "import django; django.setup(); import config; config.celery_app.loader.import_default_modules()"
    ).isdisjoint(HEAVY)


def test_dev_py_needs_nothing_but_the_standard_library():
    modules = {module for name in ("dev.py", "tests/passes.py") for module, _ in imports(ROOT / name)}
    of_the_suite = {"tests", "tests.passes"}
    assert {module.split(".")[0] for module in modules - of_the_suite} <= sys.stdlib_module_names
