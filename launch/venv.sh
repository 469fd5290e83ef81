# Sourced by the other scripts: makes .venv with the pinned requirements, or leaves it alone when it is up to date.
# Usage: . launch/venv.sh EXTRA[,EXTRA...]     Python 3.11 or 3.12 is all that must be there (PYTHON names another).
extras=$1
python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "error: no Python 3.11 or 3.12 found; install one or set PYTHON=/path/to/python3.11" >&2
    exit 2
fi
stamp=.venv/.installed-$(echo "$extras" | tr ',' '-')
if [ ! -f "$stamp" ] || [ requirements.txt -nt "$stamp" ] || [ setup.py -nt "$stamp" ]; then
    echo "installing into .venv (once)..."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable ".[$extras]"
    touch "$stamp"
fi
