# One image for every role: /app/monofs-{router,node,fetcher,client,admin}, /app/monofs, and /app/monofs-server, which is
# monofs-node by another name.
#
#   docker build -t monofs:latest .                                   builds the binaries in the image of the Rust toolchain
#   make build && docker build -t monofs:latest --build-arg BINARIES=prebuilt --build-arg RUST_IMAGE=debian:bookworm-slim .
#                                                                     takes those in bin/ (glibc of Debian 12), in seconds
#
# With BuildKit or without it: nothing here needs it, since Debian 12's docker-compose (Docker 20.10) builds without.

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# One stage makes /binaries, however: a builder without BuildKit would run two of them both.
FROM ${RUST_IMAGE} AS binaries
ARG BINARIES=builder
# C for LMDB, zstd and aws-lc; no protoc, no openssl.
RUN set -eu; [ "$BINARIES" = builder ] || exit 0; \
    apt-get update; \
    apt-get install -y --no-install-recommends gcc g++ make cmake libc6-dev; \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The commit that --version shows; the context has no .git.
ARG MONOFS_COMMIT=unknown
RUN set -eu; \
    if [ "$BINARIES" = prebuilt ]; then cp -a bin /binaries; exit 0; fi; \
    MONOFS_COMMIT=${MONOFS_COMMIT} cargo build --release --locked --bins; \
    scripts/install-binaries target/release /binaries; \
    rm -rf target

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
    install -d -o monofs -g monofs /data /var/lib/monofs /var/cache/monofs; \
    sed -i 's/^#user_allow_other/user_allow_other/' /etc/fuse.conf
COPY --from=binaries /binaries /app
COPY deploy/image/entrypoint /app/entrypoint
ENV PATH=/app:$PATH
WORKDIR /data
ENTRYPOINT ["/usr/bin/tini", "--", "/app/entrypoint"]
CMD ["/app/monofs", "--help"]
