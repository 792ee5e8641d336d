# The default equals PYTHON_IMAGE in .env, which Compose passes in.
ARG PYTHON_IMAGE=python:3.13.7-slim

FROM ${PYTHON_IMAGE} AS dependencies
COPY requirements/runtime.lock /tmp/runtime.lock
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --disable-pip-version-check --root-user-action=ignore \
    --no-cache-dir --only-binary :all: --require-hashes -r /tmp/runtime.lock

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --no-create-home --home-dir /app --shell /usr/sbin/nologin app \
 && install --directory --owner app --group app --mode 0700 /var/lib/loom
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=dependencies /opt/venv /opt/venv
COPY app/ app/
COPY migrations/ migrations/
# The root file system is read-only at run time, so bytecode is made here or never.
RUN python -m compileall -q --invalidation-mode unchecked-hash app
USER 10001:10001
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-IS", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('APP_HTTP_PORT', '8080') + '/ready', timeout=2)"]
CMD ["python", "-m", "app", "serve"]
