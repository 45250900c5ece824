# docker build -t rankloop .
# docker run --rm --network host -e RANKLOOP_MONGO_URI=mongodb://127.0.0.1:27017/?replicaSet=rs0 rankloop server
#
# Inside a network of its own a container is reached only when it binds more than loopback, and there is no authentication yet: where
# the network keeps strangers out, say so with
#   -e RANKLOOP_SERVER_HOST=0.0.0.0 -e RANKLOOP_SERVER_ALLOW_UNAUTHENTICATED=true
# (the same for RANKLOOP_RANKER_… and RANKLOOP_COLLECTOR_…; RANKLOOP_METRICS_HOST=0.0.0.0 for Prometheus).
#
# With a MongoDB inside, to try it out: docker build --build-arg EXTRAS=fast,embedded -t rankloop-embedded .
#   docker run --rm --network host -v rankloop:/var/lib/rankloop rankloop-embedded up

FROM python:3.12-slim AS build
ARG EXTRAS=fast
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY rankloop rankloop
COPY runtime runtime
COPY collector collector
COPY ranker ranker
COPY server server
COPY scripts scripts
COPY benchmarks benchmarks
RUN python -m venv /opt/rankloop && /opt/rankloop/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.12-slim
# libgomp1: LightGBM; libcurl4: the embedded mongod.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 libcurl4 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/rankloop rankloop
COPY --from=build /opt/rankloop /opt/rankloop
ENV PATH=/opt/rankloop/bin:$PATH PYTHONUNBUFFERED=1 RANKLOOP_DATA_DIR=/var/lib/rankloop/data
USER 10001
WORKDIR /var/lib/rankloop
VOLUME /var/lib/rankloop
EXPOSE 50051
STOPSIGNAL SIGTERM
ENTRYPOINT ["rankloop"]
CMD ["server"]
