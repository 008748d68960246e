# The service's image: one static binary, no shell, not root. It runs `wallcrawler serve`.
# Containers with browsers need an image with Chromium; this is not it.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/wallcrawler ./cmd/wallcrawler

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/wallcrawler /usr/local/bin/wallcrawler
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/wallcrawler"]
CMD ["serve"]
