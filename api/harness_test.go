package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	aliceKey = "key-of-alice-0123456789"
	bobKey   = "key-of-bob-0123456789"
	bareKey  = "key-of-nobody-0123456789"
	replica  = "replica-1"
)

// house is the API over a store in memory, with a small leader and one container's agent.
type house struct {
	t          *testing.T
	store      *state.Memory
	mirror     *state.Mirror
	relay      *fakeRelay
	tokens     *auth.Tokens
	containers *auth.ContainerKeys
	server     *api.Server
	http       *httptest.Server
	logs       *buffer
	epoch      int64
}

func newHouse(t *testing.T, edits ...func(*api.Config)) *house {
	t.Helper()
	h := &house{t: t, store: state.NewMemory(nil), relay: &fakeRelay{}, logs: &buffer{}}
	h.mirror = state.NewMirror(h.store, state.MirrorOptions{Relist: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.mirror.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })

	keys, err := auth.NewKeys(auth.Key{Key: aliceKey, Name: "alice"}, auth.Key{Key: bobKey, Name: "bob"}, auth.Key{Key: bareKey})
	must(t, err)
	h.tokens, err = auth.NewTokens("session-secret-0123456789abcdef")
	must(t, err)
	h.containers, err = auth.NewContainerKeys("container-secret-0123456789abcde")
	must(t, err)
	registry := prometheus.NewRegistry()
	cfg := api.Config{
		Store: h.store, Mirror: h.mirror, Tokens: h.tokens, Keys: keys, ContainerKeys: h.containers, Relay: h.relay,
		Replica: replica, Version: "test", CreateWait: time.Millisecond,
		Log:        slog.New(slog.NewJSONHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: registry, Gatherer: registry,
		Tasks: func(context.Context) (any, error) { return []map[string]string{{"arn": "task-1"}}, nil },
		Plan: func(context.Context, func(string) bool) (any, error) {
			return map[string]any{"actions": []string{}}, nil
		},
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	h.server, err = api.New(cfg)
	must(t, err)
	h.http = httptest.NewServer(h.server.Handler())
	t.Cleanup(h.http.Close)
	h.epoch, _, err = h.store.AcquireLease(ctx, replica, 0)
	must(t, err)
	h.until("the mirror is filled", func() bool { return h.mirror.Age() < time.Minute })
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			h.t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// documents calls see with each new document, some of them more than once.
func (h *house) documents(see func(id string)) (cancel func()) {
	return h.mirror.Subscribe(func(hints []state.Hint) {
		for _, hint := range hints {
			ids, err := []string{hint.ID}, error(nil)
			if hint.Kind == state.KindAll { // some may have been missed
				ids, err = h.store.DocumentIDs(context.Background())
			} else if hint.Kind != state.KindDocument {
				continue
			}
			if err != nil {
				h.t.Error(err)
			}
			for _, id := range ids {
				see(id)
			}
		}
	})
}

// lead admits, binds and readies every new document, as leader and agent would.
func (h *house) lead(cold bool) {
	h.container("cnt_lead", 1000)
	wake := make(chan string, 1000)
	cancel := h.documents(func(id string) { wake <- id })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := range wake {
			h.serve(id, cold)
		}
	}()
	h.t.Cleanup(func() { cancel(); close(wake); <-done })
}

// container registers a container that is ready.
func (h *house) container(id string, slots int) *state.Container {
	h.t.Helper()
	c, err := h.store.Register(context.Background(), state.Registration{ID: id, Launch: id, BootID: "boot-" + id, Protocol: 2, MaxSessions: slots, Owner: replica})
	must(h.t, err)
	c, err = h.store.Report(context.Background(), h.owner(c), state.Report{BootID: c.BootID, Addr: "127.0.0.9:9", Health: state.Health{Warm: 1, CPU: .25}})
	must(h.t, err)
	h.mirror.ApplyContainer(c)
	return c
}

func (h *house) owner(c *state.Container) state.Authority {
	return state.Authority{Container: c.ID, OwnerSeq: c.OwnerSeq}
}

func (h *house) leader() state.Authority { return state.Authority{Epoch: h.epoch} }

// admit makes a pending session of a document; an id that is known or ended already stays.
func (h *house) admit(id string) (*state.Session, error) {
	ctx := context.Background()
	doc, err := h.store.Document(ctx, id)
	if err != nil || doc.Missing || doc.Spec.Final() {
		return nil, errors.Join(err, state.ErrNotFound)
	}
	s, err := h.store.Admit(ctx, h.leader(), state.Admission{ID: id, Spec: doc.Text, Origin: doc.Spec.Origin, UserID: doc.Spec.UserID,
		KeepAlive: doc.Spec.KeepAlive, Remaining: doc.TTL})
	if err == nil {
		h.mirror.ApplySession(s)
	}
	return s, err
}

// serve takes a document to ready.
func (h *house) serve(id string, cold bool) {
	if _, err := h.admit(id); err != nil {
		return // seen before, or over
	}
	ctx := context.Background()
	c, err := h.store.Container(ctx, "cnt_lead")
	if err != nil {
		h.t.Error(err)
		return
	}
	s, err := h.store.Bind(ctx, h.leader(), state.Binding{Session: id, Container: c.ID, BootID: c.BootID})
	if err == nil {
		s, _, err = h.store.Ready(ctx, h.owner(c), id, s.BindRev, cold)
	}
	if err != nil {
		h.t.Error(err)
		return
	}
	h.mirror.ApplySession(s)
}

// end ends a session at once.
func (h *house) end(id string, reason state.Reason) {
	h.t.Helper()
	if reason == state.DeadlinePassed {
		_, err := h.store.Amend(context.Background(), h.leader(), state.Amendment{Session: id, Remaining: -time.Second})
		must(h.t, err)
	}
	s, err := h.store.End(context.Background(), h.leader(), state.End{Session: id, Reason: reason, Message: "because", Confirmed: true})
	must(h.t, err)
	h.mirror.ApplySession(s)
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// get decodes the body.
func (r reply) get(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("the answer is not JSON: %v: %s", err, r.body)
	}
}

func (r reply) fields(t testing.TB) map[string]any {
	t.Helper()
	var fields map[string]any
	r.get(t, &fields)
	return fields
}

// call sends a request; headers are pairs.
func (h *house) call(method, path, body string, headers ...string) reply {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.http.URL+path, strings.NewReader(body))
	must(h.t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	answer, err := h.http.Client().Do(request)
	must(h.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(h.t, err)
	return reply{answer.StatusCode, answer.Header, text}
}

func (h *house) alice(method, path, body string) reply {
	h.t.Helper()
	return h.call(method, path, body, "X-BB-API-Key", aliceKey)
}

// create makes a session of alice's.
func (h *house) create(body string) map[string]any {
	h.t.Helper()
	answer := h.alice("POST", "/v1/sessions", body)
	if answer.status != http.StatusOK {
		h.t.Fatalf("creating: %d %s", answer.status, answer.body)
	}
	return answer.fields(h.t)
}

// wantError checks an error's status, code and shape.
func wantError(t testing.TB, answer reply, status int, code string) map[string]any {
	t.Helper()
	if answer.status != status {
		t.Errorf("status %d, want %d: %s", answer.status, status, answer.body)
		return nil
	}
	fields := answer.fields(t)
	if fields["code"] != code || fields["error"] != code {
		t.Errorf("code %v, want %s: %s", fields["code"], code, answer.body)
	}
	if message, _ := fields["message"].(string); message == "" {
		t.Errorf("no message: %s", answer.body)
	}
	if id, _ := fields["requestId"].(string); id == "" || id != answer.header.Get("X-Request-Id") {
		t.Errorf("requestId %q, header %q", id, answer.header.Get("X-Request-Id"))
	}
	return fields
}

// fakeRelay answers what it is told to and remembers what it was asked.
type fakeRelay struct {
	seen map[string]bool // sessions that have had clients; set before requests

	mu    sync.Mutex // guards the fields below
	err   error
	do    func(w http.ResponseWriter, r *http.Request, a api.SessionAccess, rest string) error
	asked []asked
}

type asked struct {
	access api.SessionAccess
	rest   string
	url    string
	header http.Header
}

func (f *fakeRelay) ServeSession(w http.ResponseWriter, r *http.Request, a api.SessionAccess, rest string) error {
	f.mu.Lock()
	f.asked = append(f.asked, asked{a, rest, r.URL.String() + " " + r.RequestURI, r.Header.Clone()})
	err, do := f.err, f.do
	f.mu.Unlock()
	if do != nil {
		return do(w, r, a, rest)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, `{"relayed":true}`)
	return err
}

func (f *fakeRelay) Count() int { return 7 }

func (f *fakeRelay) Connections(session string) []state.Connection {
	if !f.seen[session] {
		return nil
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []state.Connection{
		{Opened: at, LastActivity: at.Add(time.Second), BytesToBrowser: 1, MessagesToBrowser: 2, BytesToClient: 3, MessagesToClient: 4},
		{Opened: at, LastActivity: at, Closed: at.Add(time.Minute), ClosedBy: "client", Code: 4001, Reason: "done"},
	}
}

func (f *fakeRelay) answer(err error, do func(w http.ResponseWriter, r *http.Request, a api.SessionAccess, rest string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.do = err, do
}

func (f *fakeRelay) calls() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]asked(nil), f.asked...)
}

// buffer collects logs.
type buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
