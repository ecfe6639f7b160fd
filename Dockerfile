# One image for every role: /app/monofs-{router,node,fetcher,client,admin}, /app/monofs, and /app/monofs-server, which is
# monofs-node by another name.
#
#   docker build -t monofs:latest .                                   builds the binaries in the image of the Rust toolchain
#   make build && docker build -t monofs:latest --build-arg BINARIES=prebuilt .    takes those in bin/ (glibc of Debian 12)
#
# Needs BuildKit (the default since Docker 23; DOCKER_BUILDKIT=1 before): only the stage that BINARIES names is built.

ARG BINARIES=builder
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS builder
# C for LMDB, zstd and aws-lc; no protoc, no openssl.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ make cmake libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The commit that --version shows; the context has no .git.
ARG MONOFS_COMMIT=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    MONOFS_COMMIT=${MONOFS_COMMIT} cargo build --release --locked --bins \
    && scripts/install-binaries target/release /binaries

FROM scratch AS prebuilt
COPY bin /binaries

FROM ${BINARIES} AS binaries

FROM ${RUNTIME_IMAGE}
# fuse3 mounts; git and openssh-client are for the fetcher; curl for the health checks of compose; tini reaps what git leaves.
# What the base image has already is not asked for, so that an image can be built where no archive is reachable.
RUN set -eu; packages="fuse3 ca-certificates git openssh-client curl tini"; \
    if ! dpkg --status $packages >/dev/null 2>&1; then \
        apt-get update; \
        apt-get install -y --no-install-recommends $packages; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    groupadd --gid 10001 monofs; \
    useradd --uid 10001 --gid monofs --create-home --shell /usr/sbin/nologin monofs; \
    install -d -o monofs -g monofs /data /var/lib/monofs; \
    sed -i 's/^#user_allow_other/user_allow_other/' /etc/fuse.conf
COPY --from=binaries /binaries /app
COPY deploy/image/entrypoint /app/entrypoint
ENV PATH=/app:$PATH
WORKDIR /data
ENTRYPOINT ["/usr/bin/tini", "--", "/app/entrypoint"]
CMD ["/app/monofs", "--help"]
