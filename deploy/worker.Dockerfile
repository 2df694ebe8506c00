# syntax=docker/dockerfile:1
# The worker side: the dispatcher with its local launcher, drivers, Ray and torch.
#   docker build -f deploy/worker.Dockerfile -t mutransfer-worker .
#   docker build -f deploy/worker.Dockerfile -t mutransfer-worker --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG TORCH_SPEC=torch==2.13.0
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} "${TORCH_SPEC}"
COPY --from=build /wheels /wheels
RUN wheel=$(find /wheels -name 'mutransfer-*.whl') \
 && pip install --no-cache-dir "${wheel}[worker]" "${TORCH_SPEC}" \
 && useradd --uid 10001 --create-home mutransfer \
 && install -d -o mutransfer -g mutransfer -m 0700 /var/lib/mutransfer
USER 10001
ENV MUTRANSFER_HOME=/var/lib/mutransfer \
    MUTRANSFER_EMBEDDED=false \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/mutransfer
ENTRYPOINT ["mutransfer"]
CMD ["dispatcher"]
