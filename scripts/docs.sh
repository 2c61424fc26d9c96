#!/usr/bin/env bash
# Builds the site of the documents into runs/site, in English and Chinese; a page that is missing, a link or an anchor that leads
# nowhere, and a docstring that cannot be read stop it. Needs the extra `docs`. What is given is passed on to mkdocs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -x "${VENV:-.venv}/bin/mkdocs" ]; then PATH="$PWD/${VENV:-.venv}/bin:$PATH"; fi
# Material warns that mkdocs 2 will be another program; the locks hold 1.6.
NO_MKDOCS_2_WARNING=1 exec mkdocs build --strict --quiet "$@"
