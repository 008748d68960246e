package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestATraceIsASessionsLife creates a session through one replica and uses it through another:
// what both tell a collector is one trace.
func TestATraceIsASessionsLife(t *testing.T) {
	t.Parallel()
	var (
		mu     sync.Mutex
		traces = map[string]map[string]bool{} // by id, the names of their spans and by whom
	)
	inbox := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &got) != nil {
			http.Error(w, "not understood", http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range got.GetResourceSpans() {
			by := ""
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.instance.id" {
					by = a.GetValue().GetStringValue()
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					id := fmt.Sprintf("%x", span.GetTraceId())
					if traces[id] == nil {
						traces[id] = map[string]bool{}
					}
					traces[id][span.GetName()] = true
					traces[id]["by "+by] = true
				}
			}
		}
	}))
	t.Cleanup(inbox.Close)

	s := newService(t, serviceOptions{env: map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": inbox.URL, "OTEL_BSP_SCHEDULE_DELAY": "100",
	}})
	one, two := startReplica(t, s, "one", s.port), startReplica(t, s, "two", freePort(t))
	one.awaitReady(t)
	two.awaitReady(t)
	s.awaitContainer(t)
	created := s.alice.create(t, nil)
	client := dialCDP(t, strings.Replace(created.ConnectURL, one.url()[len("http://"):], two.url()[len("http://"):], 1))
	client.alive(t)
	s.alice.release(t, created.ID)

	want := []string{"bind", "by one", "by two", "connect", "create", "ready", "session"}
	eventually(t, 60*time.Second, "one trace tells the session's life", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(traces) != 1 {
			return fmt.Errorf("there are %d traces", len(traces))
		}
		for _, spans := range traces {
			if got := slices.Sorted(maps.Keys(spans)); !slices.Equal(got, want) {
				return fmt.Errorf("it has %v, want %v", got, want)
			}
		}
		return nil
	})
}
