# shellcheck shell=bash
# Sourced by the scripts beside it: makes .venv in the project's root what requirements.lock says, and sets ROOT.
# Does nothing when .venv is current. PYTHON may name the interpreter; default: the first of 3.11 to 3.13 found.
set -euo pipefail
ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv

supported() { # INTERPRETER: can it make the environment?
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "${PYTHON:-"no interpreter on PATH"} is not a Python 3.11, 3.12 or 3.13 with venv and ensurepip;" \
        "install one, or name it: PYTHON=/path/to/python3" >&2
    return 1
}

fingerprint() { # INTERPRETER: what the environment depends on; the path too, because a moved .venv is broken
    "$1" - "$ROOT" <<'PY'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256()
for part in (root / "requirements.lock", root / "pyproject.toml"):
    digest.update(part.read_bytes())
print(sys.version.split()[0], digest.hexdigest(), root)
PY
}

current() { # is .venv finished and up to date? Sets PYTHON_FOUND and STAMP for build
    if [ -z "${PYTHON:-}" ] && [ ! -e "$VENV/.setup-begun" ] && supported "$VENV/bin/python"; then
        PYTHON_FOUND=$VENV/bin/python
    else
        PYTHON_FOUND=$(find_python) || exit 1
    fi
    STAMP=$(fingerprint "$PYTHON_FOUND")
    [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.setup-done" 2>/dev/null)" = "$STAMP" ]
}

build() { # INTERPRETER FINGERPRINT
    local version=none
    version=$("$VENV/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) || true
    # An interrupted pip can leave packages that only look installed, so such an environment is made anew.
    if [ -e "$VENV/.setup-begun" ] || [ "$version" != "${2%% *}" ]; then
        rm -rf "$VENV"
        mkdir "$VENV"
        touch "$VENV/.setup-begun"
        "$1" -m venv "$VENV"
    fi
    rm -f "$VENV/.setup-done"
    touch "$VENV/.setup-begun"
    "$VENV/bin/python" -m pip install --no-input --no-deps -r "$ROOT/requirements.lock"
    "$VENV/bin/python" -m pip install --no-input --no-deps --no-build-isolation -e "$ROOT"
    "$VENV/bin/python" -m pip check
    echo "$2" >"$VENV/.setup-done"
    rm "$VENV/.setup-begun"
}

setup() {
    local log
    if current; then return; fi
    if command -v flock >/dev/null; then flock 9; fi
    if current; then return; fi # another run did it while this one waited
    echo "setting up .venv (first use, takes a minute or two)…" >&2
    log=$(mktemp)
    if ! bash -euo pipefail -c "$(declare -f build); build \"\$@\"" build "$PYTHON_FOUND" "$STAMP" \
        >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        echo "setting up .venv failed; the whole log is in $log; run again to start over" >&2
        return 1
    fi
    rm -f "$log"
}

export ROOT VENV
setup 9<"$ROOT/requirements.lock"
