package traces

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// The library's own client for OTLP over HTTP brings all of gRPC along, 15 MB of the program;
// this one speaks the same protocol, and obeys the same variables.
const (
	defaultTimeout = 10 * time.Second // of one attempt
	firstPause     = time.Second      // before the second attempt; doubled each time
	longestPause   = 30 * time.Second
	maxAnswer      = 4 << 10 // bytes of an answer that are read
)

// collector delivers spans to a collector.
type collector struct {
	url     string
	header  http.Header
	zip     bool
	timeout time.Duration
	client  *http.Client
}

var _ otlptrace.Client = (*collector)(nil)

// newCollector reads how to deliver from OpenTelemetry's variables; lookup is os.Getenv. No
// value of theirs is in an error: some are secrets.
func newCollector(endpoint string, lookup func(string) string) (*collector, error) {
	// Each variable has a form for traces only, which goes first.
	get := func(name string) string {
		if v := lookup("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
			return v
		}
		return lookup("OTEL_EXPORTER_OTLP_" + name)
	}
	c := &collector{url: endpoint, header: http.Header{}, timeout: defaultTimeout}
	if err := c.readHeaders(get("HEADERS")); err != nil {
		return nil, err
	}
	if text := get("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 {
			return nil, errors.New("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds")
		}
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	switch get("COMPRESSION") {
	case "", "none":
	case "gzip":
		c.zip = true
	default:
		return nil, errors.New("OTEL_EXPORTER_OTLP_COMPRESSION must be gzip or none")
	}
	trust, err := tlsOf(get("CERTIFICATE"), get("CLIENT_CERTIFICATE"), get("CLIENT_KEY"))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true,
		MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	c.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers are for nobody else
	}
	return c, nil
}

// readHeaders reads name=value,name=value, with the values percent-encoded.
func (c *collector) readHeaders(text string) error {
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(one) == "" {
			continue // a comma at the end
		}
		name, value, ok := strings.Cut(one, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil || strings.ContainsAny(name+value, "\r\n") {
			return errors.New("OTEL_EXPORTER_OTLP_HEADERS must be name=value,name=value, with values percent-encoded")
		}
		c.header.Set(name, value)
	}
	return nil
}

func tlsOf(authority, certificate, key string) (*tls.Config, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if authority != "" {
		text, err := os.ReadFile(authority)
		if err != nil {
			return nil, fmt.Errorf("reading OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s holds no certificate in PEM", authority)
		}
	}
	if certificate != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("reading OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and …_CLIENT_KEY: %w", err)
		}
		trust.Certificates = []tls.Certificate{pair}
	}
	return trust, nil
}

// Start implements otlptrace.Client: there is nothing to begin with.
func (*collector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *collector) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. It tries again, until ctx ends and for a minute at
// most, what a collector was too busy for: what comes later waits for it.
func (c *collector) UploadTraces(ctx context.Context, spans []*otlp.ResourceSpans) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// On the wire the same as the collector's request, whose package brings gRPC.
	body, err := proto.Marshal(&otlp.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encoding spans: %w", err)
	}
	if c.zip {
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		_, err = w.Write(body)
		if err = errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("compressing spans: %w", err)
		}
		body = zipped.Bytes()
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		after, err := c.post(ctx, body)
		if err == nil || after < 0 {
			return err
		}
		if after == 0 {
			after = pause/2 + rand.N(pause) //nolint:gosec // spreads replicas apart
		}
		timer := time.NewTimer(min(after, longestPause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("spans not delivered in time: %w", err)
		}
	}
}

// post makes one attempt. With an error it gives the pause before the next: zero if the
// collector named none, negative if another is of no use.
func (c *collector) post(ctx context.Context, body []byte) (after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return -1, fmt.Errorf("making a request of spans: %w", err)
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "wallcrawler")
	if c.zip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return -1, fmt.Errorf("delivering spans: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			after = time.Duration(min(seconds, 3600)) * time.Second
		}
		return after, fmt.Errorf("delivering spans: the collector answered %s", resp.Status)
	}
	if resp.StatusCode >= 300 {
		return -1, fmt.Errorf("delivering spans: the collector answered %s", resp.Status)
	}
	return 0, nil
}
