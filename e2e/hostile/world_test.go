//go:build linux

package hostile

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// patience is for what must happen, on a machine with much else to do.
const patience = 60 * time.Second

// world is a service whose containers' sockets are served by tests, each session's by its own.
type world struct {
	*stage.Service

	mu     sync.Mutex
	served map[string]http.HandlerFunc // guarded by mu; by session
}

func newWorld(t *testing.T) *world {
	t.Helper()
	g := &stage.Stage{Tmp: t.TempDir()}
	g.Binary = filepath.Join(g.Tmp, "wallcrawler")
	if err := stage.Build(t.Context(), g.Binary, "-race"); err != nil {
		t.Fatal(err)
	}
	w := &world{served: map[string]http.HandlerFunc{}}
	s, err := g.StartService(t.Context(), stage.Options{Containers: 1, Slots: 100, Notifications: true, Sockets: w.serve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w.Service = s
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sessions/"), "/")
	w.mu.Lock()
	handler := w.served[id]
	w.mu.Unlock()
	if handler == nil {
		http.NotFound(rw, r)
		return
	}
	handler(rw, r)
}

// session creates one whose sockets are served by handler.
func (w *world) session(t *testing.T, handler http.HandlerFunc) stage.Session {
	t.Helper()
	var created stage.Session
	if err := w.API.Do(t.Context(), http.MethodPost, "/v1/sessions", map[string]any{"keepAlive": true}, &created); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served[created.ID] = handler
	return created
}
