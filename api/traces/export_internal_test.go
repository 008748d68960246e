package traces

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func lookup(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func spans() []*otlp.ResourceSpans {
	return []*otlp.ResourceSpans{{ScopeSpans: []*otlp.ScopeSpans{{Spans: []*otlp.Span{{Name: "session"}}}}}}
}

// TestDelivery: what is delivered, with which headers, to whom, and what is tried again.
func TestDelivery(t *testing.T) {
	var calls atomic.Int32
	busy := int32(0) // how many calls are answered that the collector is busy
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		if n <= busy {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			zipped, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = zipped
		}
		text, err := io.ReadAll(body)
		var got otlp.TracesData
		if err != nil || proto.Unmarshal(text, &got) != nil || got.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()[0].GetName() != "session" {
			t.Errorf("got %q, %v", text, err)
		}
		if r.Header.Get("Api-Key") != "a b" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("its headers are %v", r.Header)
		}
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
		case "/no":
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	deliver := func(path string, busyFor int32, env map[string]string) (int32, error) {
		t.Helper()
		calls.Store(0)
		busy = busyFor
		env["OTEL_EXPORTER_OTLP_HEADERS"], env["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] = "api-key=other", "api-key=a%20b"
		c, err := newCollector(server.URL+path, lookup(env))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err = c.UploadTraces(ctx, spans())
		_ = c.Stop(ctx)
		return calls.Load(), err
	}
	trusted := func(more ...string) map[string]string {
		env := map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": authority}
		for i := 0; i < len(more); i += 2 {
			env[more[i]] = more[i+1]
		}
		return env
	}
	if n, err := deliver("/", 0, trusted()); err != nil || n != 1 {
		t.Errorf("plain: %d calls, %v", n, err)
	}
	if n, err := deliver("/", 0, trusted("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")); err != nil || n != 1 {
		t.Errorf("compressed: %d calls, %v", n, err)
	}
	if n, err := deliver("/", 2, trusted()); err != nil || n != 3 {
		t.Errorf("busy: %d calls, %v", n, err)
	}
	if n, err := deliver("/no", 0, trusted()); err == nil || n != 1 {
		t.Errorf("refused: %d calls, %v", n, err)
	}
	if n, err := deliver("/elsewhere", 0, trusted()); err == nil || n != 1 {
		t.Errorf("sent elsewhere: %d calls, %v", n, err)
	}
	if n, err := deliver("/", 0, map[string]string{}); err == nil || n != 0 {
		t.Errorf("not trusted: %d calls, %v", n, err)
	}
}

// TestBadVariablesAreRefusedWithoutBeingTold: some of them are secrets.
func TestBadVariablesAreRefusedWithoutBeingTold(t *testing.T) {
	for name, value := range map[string]string{
		"HEADERS": "canary", "TIMEOUT": "canary", "COMPRESSION": "canary", "TRACES_HEADERS": "a=%zzcanary",
	} {
		_, err := newCollector("http://127.0.0.1:4318/v1/traces", lookup(map[string]string{"OTEL_EXPORTER_OTLP_" + name: value}))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"} {
		if _, err := newCollector("http://127.0.0.1:4318/v1/traces", lookup(map[string]string{"OTEL_EXPORTER_OTLP_" + name: "/nowhere"})); err == nil {
			t.Errorf("%s may name a file that is not there", name)
		}
	}
}

// TestTheChartTakesWhatTheExporterReads: no more, and headers as secrets.
func TestTheChartTakesWhatTheExporterReads(t *testing.T) {
	text, err := os.ReadFile("../../charts/wallcrawler/files/otel.json")
	if err != nil {
		t.Fatal(err)
	}
	var secret map[string]bool
	if err := json.Unmarshal(text, &secret); err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	if _, err := newCollector("http://127.0.0.1:1", func(name string) string { read[name] = true; return "" }); err != nil {
		t.Fatal(err)
	}
	for name := range read {
		isSecret, taken := secret[name]
		if want := strings.HasSuffix(name, "_HEADERS"); !taken || isSecret != want {
			t.Errorf("%s: the chart takes it: %v, as a secret: %v, want %v", name, taken, isSecret, want)
		}
	}
	for name := range secret {
		if !read[name] && !strings.HasPrefix(name, "OTEL_BSP_") { // those are the SDK's
			t.Errorf("the chart takes %s, which nobody reads", name)
		}
	}
}
