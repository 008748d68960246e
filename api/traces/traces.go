// Package traces tells a session's life to an OpenTelemetry collector: one trace a session,
// whose spans come from whichever replicas took part.
//
// The ids of the trace and of its root span follow from the session's id, so that replicas
// agree on them without a word between them, and so that whoever knows a session finds its
// trace.
package traces

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/wallcrawler/wallcrawler/state"
)

// Config is what a Tracer runs with. Endpoint is required.
type Config struct {
	Endpoint   string  // base URL of a collector that takes OTLP over HTTP
	Ratio      float64 // of all sessions, how many are traced: 0 to 1; the same ones on every replica
	Deployment string
	Replica    string
	Version    string
}

// Tracer sends spans. What cannot be delivered is dropped: no request ever waits for it. All
// methods of a nil Tracer do nothing.
type Tracer struct {
	provider   *sdk.TracerProvider
	tracer     trace.Tracer
	deployment string
}

// New returns a tracer. Nothing is sent before the first span; Shutdown sends the last.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("the endpoint for traces must be http(s)://host[:port][/path]; credentials go into OTEL_EXPORTER_OTLP_HEADERS")
	}
	client, err := newCollector(u.JoinPath("v1/traces").String(), os.Getenv)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("making the exporter of traces: %w", err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithIDGenerator(ids{}),
		// By the trace's id alone: every replica comes to the same decision.
		sdk.WithSampler(sdk.TraceIDRatioBased(cfg.Ratio)),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "wallcrawler"),
			attribute.String("service.namespace", cfg.Deployment),
			attribute.String("service.instance.id", cfg.Replica),
			attribute.String("service.version", cfg.Version),
		)),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/wallcrawler/wallcrawler"), deployment: cfg.Deployment}, nil
}

// Shutdown sends what is left, until ctx ends.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Created tells that a request has created a session, since began. A traceparent among the
// request's headers becomes a link to the requester's own trace.
func (t *Tracer) Created(session string, began time.Time, header http.Header) {
	if t == nil {
		return
	}
	o := []trace.SpanStartOption{trace.WithTimestamp(began), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(sessionID(session))}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(header))
	if requester := trace.SpanContextFromContext(ctx); requester.IsValid() {
		o = append(o, trace.WithLinks(trace.Link{SpanContext: requester}))
	}
	_, span := t.tracer.Start(t.within(session), "create", o...)
	span.End()
}

// Connected tells of a client's connection to its browser that has ended.
func (t *Tracer) Connected(session string, c state.Connection) {
	if t == nil {
		return
	}
	_, span := t.tracer.Start(t.within(session), "connect", trace.WithTimestamp(c.Opened), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			sessionID(session),
			attribute.String("wallcrawler.closed_by", c.ClosedBy),
			attribute.Int("wallcrawler.close_code", c.Code),
			attribute.Int64("wallcrawler.bytes_to_browser", int64(min(c.BytesToBrowser, 1<<62))), //nolint:gosec // bounded
			attribute.Int64("wallcrawler.bytes_to_client", int64(min(c.BytesToClient, 1<<62))),   //nolint:gosec // bounded
		))
	span.End(trace.WithTimestamp(c.Closed))
}

// Ended tells of a session that has ended: its whole life, how long it waited for a
// container, and how long its browser took to be ready.
func (t *Tracer) Ended(s *state.Session) {
	if t == nil || s.SeenAt.IsZero() || s.EndedAt.IsZero() {
		return
	}
	ctx := context.WithValue(context.Background(), rootKey{}, t.root(s.ID))
	_, whole := t.tracer.Start(ctx, "session", trace.WithNewRoot(), trace.WithTimestamp(s.SeenAt), trace.WithAttributes(
		sessionID(s.ID),
		attribute.String("wallcrawler.origin", string(s.Origin)),
		attribute.String("wallcrawler.container", s.Container),
		attribute.String("wallcrawler.reason", string(s.Reason)),
		attribute.Int("wallcrawler.attempts", s.Attempts),
		attribute.Bool("wallcrawler.cold", s.Cold),
	))
	if !s.FirstConnectAt.IsZero() {
		whole.AddEvent("first connect", trace.WithTimestamp(s.FirstConnectAt))
	}
	switch s.Reason {
	case state.Failed, state.BrowserCrashed, state.ContainerLost, state.StoppedExternally:
		whole.SetStatus(codes.Error, string(s.Reason))
	default: // its requester, its clients or its deadline ended it
	}
	whole.End(trace.WithTimestamp(s.EndedAt))
	t.part(s.ID, "bind", s.SeenAt, s.BoundAt)
	t.part(s.ID, "ready", s.BoundAt, s.ReadyAt)
}

// part tells of a part of a session's life, unless it never came to its end.
func (t *Tracer) part(session, name string, from, to time.Time) {
	if from.IsZero() || to.Before(from) {
		return
	}
	_, span := t.tracer.Start(t.within(session), name, trace.WithTimestamp(from), trace.WithAttributes(sessionID(session)))
	span.End(trace.WithTimestamp(to))
}

// within is a context inside the session's root span, which this replica need not have seen.
func (t *Tracer) within(session string) context.Context {
	return trace.ContextWithRemoteSpanContext(context.Background(), t.root(session))
}

// root is the session's root span.
func (t *Tracer) root(session string) trace.SpanContext {
	sum := sha256.Sum256([]byte("wallcrawler session\x00" + t.deployment + "\x00" + session))
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(sum[:16]), SpanID: trace.SpanID(sum[16:24]), TraceFlags: trace.FlagsSampled,
	})
}

func sessionID(session string) attribute.KeyValue {
	return attribute.String("wallcrawler.session", session)
}

type rootKey struct{}

// ids gives root spans the ids that their context holds, and all others any.
type ids struct{}

// NewIDs implements the SDK's generator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if root, ok := ctx.Value(rootKey{}).(trace.SpanContext); ok {
		return root.TraceID(), root.SpanID()
	}
	var id trace.TraceID
	fill(id[:])
	return id, ids{}.NewSpanID(ctx, id)
}

// NewSpanID implements the SDK's generator.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	fill(id[:])
	return id
}

func fill(b []byte) {
	for i := range b {
		b[i] = byte(rand.Uint32()) //nolint:gosec // ids need not be secret
	}
}
