# syntax=docker/dockerfile:1
# The worker side: the dispatcher with its local launcher, drivers, Ray nodes and torch.
#   docker build -f deploy/worker.Dockerfile -t mutransfer-worker .                        # CUDA, from PyPI
#   docker build -f deploy/worker.Dockerfile -t mutransfer-worker --build-arg DEVICE=cpu .
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG DEVICE=cuda
ARG TORCH_SPEC=torch==2.13.0
# An index of one's own, for machines without PyPI; it replaces what DEVICE would choose.
ARG TORCH_INDEX=
RUN case "${DEVICE}" in \
      cuda) index="${TORCH_INDEX}" ;; \
      cpu) index="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" ;; \
      *) echo "DEVICE is cpu or cuda, not '${DEVICE}'" >&2; exit 1 ;; \
    esac \
 && pip install --no-cache-dir ${index:+--extra-index-url "${index}"} "${TORCH_SPEC}"
COPY --from=build /wheels /wheels
RUN wheel=$(find /wheels -name 'mutransfer-*.whl') \
 && pip install --no-cache-dir "${wheel}[worker]" "ray[default]" "${TORCH_SPEC}" \
 && useradd --uid 10001 --create-home mutransfer \
 && install -d -o mutransfer -g mutransfer -m 0700 /var/lib/mutransfer
USER 10001
ENV MUTRANSFER_HOME=/var/lib/mutransfer \
    MUTRANSFER_EMBEDDED=false \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/mutransfer
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s CMD ["mutransfer", "db", "current", "--check"]
ENTRYPOINT ["mutransfer"]
CMD ["dispatcher"]
