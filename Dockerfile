# One image for every role: `tocsin operator`, `tocsin ingest`, `tocsin consume`. Nothing is written below /, so a pod may
# run it with a read-only root and as any user.

FROM docker.io/library/python:3.13-slim AS build
# Where pip finds the CA certificates of a private index or a proxy: --build-arg PIP_CERT=..., mounted or copied by you.
ARG PIP_CERT
RUN python -m venv /opt/tocsin
COPY requirements/image.txt /src/requirements/image.txt
RUN /opt/tocsin/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements/image.txt
COPY LICENSE README.md pyproject.toml /src/
COPY operator /src/operator
COPY services /src/services
RUN /opt/tocsin/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation /src

# For `tilt up` alone: the same files, writable by the user that Tilt's live update copies as, under a reloader.
FROM build AS dev
COPY manifests/kind/reload /usr/local/bin/reload
RUN touch /opt/tocsin/.reload && chown -R 65532:65532 /opt/tocsin
ENV PATH=/opt/tocsin/bin:$PATH PYTHONUNBUFFERED=1 USER=tocsin
USER 65532:65532
ENTRYPOINT ["reload"]

# What builds a wheel has no business in a pod.
FROM build AS installed
RUN /opt/tocsin/bin/pip uninstall --quiet --yes hatchling pathspec pluggy tomlkit trove-classifiers pip

FROM docker.io/library/python:3.13-slim
# The base image leaves out the standard library's bytecode, and a read-only root cannot keep it: without this every pod
# would compile it again at every start.
RUN python -m compileall -q -x '/(test|tests|idlelib|tkinter|turtledemo|ensurepip|site-packages)/' /usr/local/lib/python3.13
COPY --from=installed /opt/tocsin /opt/tocsin
# USER: the numeric user has no name, and libraries ask for one.
ENV PATH=/opt/tocsin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 USER=tocsin
USER 65532:65532
ENTRYPOINT ["tocsin"]
