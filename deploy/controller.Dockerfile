# syntax=docker/dockerfile:1
# The controller side: API, dashboard, scheduler, exporter, and MLflow's server. No torch, no ray.
#   docker build -f deploy/controller.Dockerfile -t mutransfer-controller .
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY --from=build /wheels /wheels
RUN wheel=$(find /wheels -name 'mutransfer-*.whl') \
 && pip install --no-cache-dir "${wheel}[service]" \
 && useradd --uid 10001 --create-home mutransfer \
 && install -d -o mutransfer -g mutransfer -m 0700 /var/lib/mutransfer
USER 10001
ENV MUTRANSFER_HOME=/var/lib/mutransfer \
    MUTRANSFER_EMBEDDED=false \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/mutransfer
EXPOSE 8400
# Of any role: its database answers, and has this version's tables. Orchestrators ask the controller itself by /readyz.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s CMD ["mutransfer", "db", "current", "--check"]
ENTRYPOINT ["mutransfer"]
CMD ["controller"]
