# The service's image: one static binary and the roots of trust, nothing else; no shell, not root.
# It runs `wallcrawler serve`. Dockerfile.browser makes the image of containers with browsers.
#
# What goes in is pinned: Go and modules by version and sum, the base by the tag (or the digest)
# below. Two builds of one commit make the same binary, and with SOURCE_DATE_EPOCH the same image.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
ARG TARGETOS
ARG TARGETARCH
RUN GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=${VERSION}" -o /out/wallcrawler ./cmd/wallcrawler

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/wallcrawler /usr/local/bin/wallcrawler
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/local/bin/wallcrawler", "health", "--alive"]
ENTRYPOINT ["/usr/local/bin/wallcrawler"]
CMD ["serve"]
