# One image with all programs. The manager and the issuer are `tokenward manager` and
# `tokenward issuer`; the manager injects the same image with /tokenward-sidecar,
# and with /tokenward-redirect under Redirect capture.
#
#   docker build -t ghcr.io/tokenward/tokenward:latest .
#   docker buildx build --platform linux/amd64,linux/arm64 -t … --push .
#
# All programs are pure Go and static: BASE can be anything, even scratch.
ARG BUILDER=golang:1.26
ARG BASE=gcr.io/distroless/static-debian12:nonroot

# Compiled on the machine's own platform for the wanted one: no emulation.
FROM --platform=$BUILDPLATFORM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ENV CGO_ENABLED=0
RUN GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/tokenward . \
 && GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} go build -trimpath -ldflags '-s -w' -o /out/tokenward-sidecar ./sidecar \
 && GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} go build -trimpath -ldflags '-s -w' -o /out/tokenward-redirect ./redirect

FROM ${BASE}
LABEL org.opencontainers.image.title="Tokenward" \
      org.opencontainers.image.description="Token authentication for any workload on Kubernetes, from one annotation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/tokenward/tokenward"
COPY --from=build /out/tokenward /out/tokenward-sidecar /out/tokenward-redirect /
USER 65532:65532
ENTRYPOINT ["/tokenward"]
