package traces_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wallcrawler/wallcrawler/api/traces"
	"github.com/wallcrawler/wallcrawler/state"
)

// inbox is a collector that keeps what it gets.
type inbox struct {
	*httptest.Server

	mu    sync.Mutex
	spans []*otlp.Span
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	in := &inbox{}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/base/v1/traces" || proto.Unmarshal(body, &got) != nil {
			http.Error(w, "not understood", http.StatusBadRequest)
			return
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, resource := range got.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				in.spans = append(in.spans, scope.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) named(t *testing.T, name string) *otlp.Span {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.spans {
		if s.GetName() == name {
			return s
		}
	}
	t.Fatalf("no span %q among %v", name, in.spans)
	return nil
}

func newTracer(t *testing.T, in *inbox, replica string, ratio float64) *traces.Tracer {
	t.Helper()
	tracer, err := traces.New(t.Context(), traces.Config{Endpoint: in.URL + "/base", Ratio: ratio, Deployment: "test", Replica: replica})
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func flush(t *testing.T, tracers ...*traces.Tracer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, tracer := range tracers {
		if err := tracer.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func session(id string) *state.Session {
	at := time.Unix(1_800_000_000, 0)
	return &state.Session{
		ID: id, Phase: state.Ended, Reason: state.Released,
		SeenAt: at, BoundAt: at.Add(time.Second), ReadyAt: at.Add(3 * time.Second), FirstConnectAt: at.Add(4 * time.Second), EndedAt: at.Add(9 * time.Second),
	}
}

func TestReplicasTellOneTrace(t *testing.T) {
	in := newInbox(t)
	one, two, three := newTracer(t, in, "one", 1), newTracer(t, in, "two", 1), newTracer(t, in, "three", 1)
	s := session("ses_1")
	header := http.Header{"Traceparent": {"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}}
	one.Created("ses_1", s.SeenAt, header)
	two.Connected("ses_1", state.Connection{Opened: s.FirstConnectAt, Closed: s.EndedAt, ClosedBy: "client", BytesToClient: 7})
	three.Ended(s)
	flush(t, one, two, three)

	root := in.named(t, "session")
	if len(root.GetParentSpanId()) != 0 {
		t.Errorf("the session's span has a parent")
	}
	for name, took := range map[string]time.Duration{"bind": time.Second, "ready": 2 * time.Second, "connect": 5 * time.Second, "session": 9 * time.Second, "create": -1} {
		span := in.named(t, name)
		if string(span.GetTraceId()) != string(root.GetTraceId()) {
			t.Errorf("%s is of another trace", name)
		}
		if name != "session" && string(span.GetParentSpanId()) != string(root.GetSpanId()) {
			t.Errorf("%s is no part of the session", name)
		}
		if got := time.Duration(span.GetEndTimeUnixNano() - span.GetStartTimeUnixNano()); took >= 0 && got != took { //nolint:gosec // small
			t.Errorf("%s took %v, want %v", name, got, took)
		}
	}
	links := in.named(t, "create").GetLinks()
	if len(links) != 1 || links[0].GetTraceId()[0] != 0x01 || links[0].GetTraceId()[1] != 0x23 {
		t.Errorf("create's links are %v, want the requester's span", links)
	}
	if code := root.GetStatus().GetCode(); code != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("a released session is %v", code)
	}
}

func TestASessionThatWasLostIsAnError(t *testing.T) {
	in := newInbox(t)
	tracer := newTracer(t, in, "one", 1)
	s := session("ses_1")
	s.Reason, s.ReadyAt = state.ContainerLost, time.Time{}
	tracer.Ended(s)
	flush(t, tracer)
	if got := in.named(t, "session").GetStatus(); got.GetCode() != otlp.Status_STATUS_CODE_ERROR || got.GetMessage() != string(state.ContainerLost) {
		t.Errorf("its status is %v", got)
	}
	for _, span := range in.spans {
		if span.GetName() == "ready" {
			t.Error("it was never ready")
		}
	}
}

// Each way to end gives a whole trace: the session, and the parts of its life that came to
// their end, none of which is longer than it.
func TestEachEndIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		reason state.Reason
		change func(*state.Session)
		parts  []string
		wrong  bool
	}{
		"deadline":                 {state.DeadlinePassed, func(*state.Session) {}, []string{"bind", "ready"}, false},
		"never bound":              {state.Failed, func(s *state.Session) { s.BoundAt, s.ReadyAt, s.FirstConnectAt = time.Time{}, time.Time{}, time.Time{} }, nil, true},
		"deadline before a slot":   {state.DeadlinePassed, func(s *state.Session) { s.BoundAt, s.ReadyAt, s.FirstConnectAt = time.Time{}, time.Time{}, time.Time{} }, nil, false},
		"never ready":              {state.Failed, func(s *state.Session) { s.ReadyAt, s.FirstConnectAt = time.Time{}, time.Time{} }, []string{"bind"}, true},
		"crashed":                  {state.BrowserCrashed, func(*state.Session) {}, []string{"bind", "ready"}, true},
		"nobody came":              {state.NotConnected, func(s *state.Session) { s.FirstConnectAt = time.Time{} }, []string{"bind", "ready"}, false},
		"stopped by somebody else": {state.StoppedExternally, func(*state.Session) {}, []string{"bind", "ready"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInbox(t)
			tracer := newTracer(t, in, "one", 1)
			s := session("ses_1")
			s.Reason, s.UserID, s.Message = c.reason, "canary-user", "canary-message"
			s.Spec = []byte(`{"connectUrl":"ws://canary/?token=canary-token"}`)
			c.change(s)
			tracer.Ended(s)
			flush(t, tracer)
			root := in.named(t, "session")
			if wrong := root.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR; wrong != c.wrong {
				t.Errorf("an error: %t, want %t", wrong, c.wrong)
			}
			var parts []string
			for _, span := range in.spans {
				if span.GetStartTimeUnixNano() < root.GetStartTimeUnixNano() || span.GetEndTimeUnixNano() > root.GetEndTimeUnixNano() {
					t.Errorf("%s is outside the session's life", span.GetName())
				}
				if text := span.String(); strings.Contains(text, "canary") || strings.Contains(text, "token") {
					t.Errorf("%s tells what is not for a collector: %s", span.GetName(), text)
				}
				if span.GetName() != "session" {
					parts = append(parts, span.GetName())
				}
			}
			if slices.Sort(parts); !slices.Equal(parts, c.parts) {
				t.Errorf("its parts are %v, want %v", parts, c.parts)
			}
		})
	}
}

// What is sampled is so on every replica: a trace is whole or not there.
func TestReplicasSampleTheSameSessions(t *testing.T) {
	in := newInbox(t)
	one, two := newTracer(t, in, "one", 0.5), newTracer(t, in, "two", 0.5)
	const sessions = 400
	for i := range sessions {
		s := session("ses_" + strings.Repeat("x", i))
		if len(s.ID) > 128 {
			s.ID = s.ID[:100] + time.Duration(i).String()
		}
		one.Ended(s)
		two.Connected(s.ID, state.Connection{Opened: s.SeenAt, Closed: s.EndedAt})
	}
	flush(t, one, two)
	seen := map[string]map[string]bool{"session": {}, "connect": {}}
	for _, span := range in.spans {
		if of := seen[span.GetName()]; of != nil {
			of[string(span.GetTraceId())] = true
		}
	}
	if n := len(seen["session"]); n < sessions/4 || n > sessions*3/4 {
		t.Errorf("%d of %d sessions are traced", n, sessions)
	}
	if len(seen["session"]) != len(seen["connect"]) {
		t.Errorf("%d sessions, %d connections", len(seen["session"]), len(seen["connect"]))
	}
	for id := range seen["connect"] {
		if !seen["session"][id] {
			t.Error("a connection of a session that is not there")
		}
	}
}

func TestNoTracerIsNoTrouble(t *testing.T) {
	var none *traces.Tracer
	none.Created("s", time.Now(), nil)
	none.Connected("s", state.Connection{})
	none.Ended(session("s"))
	flush(t, none)
}

func TestBadEndpointsAreRefusedWithoutBeingTold(t *testing.T) {
	for _, endpoint := range []string{"collector:4318", "grpc://collector", "http://", "https://user:hunter2@collector", "https://collector/?api-key=hunter2", "http://\x00"} {
		_, err := traces.New(t.Context(), traces.Config{Endpoint: endpoint, Ratio: 1})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
