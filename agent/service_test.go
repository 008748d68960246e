package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/agent"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	token   = "canary-token-of-the-container"
	secret  = "canary-secret-of-the-link"
	patient = 10 * time.Second // for what must happen
)

// service is the other side of the agent: it takes registrations and dials links.
type service struct {
	url        string
	registered chan wire.Registration

	mu     sync.Mutex
	status int // of the answers to come; 0: 200
	tokens []string
}

func newService(t *testing.T) *service {
	s := &service{registered: make(chan wire.Registration, 64)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *service) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var reg wire.Registration
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &reg)
	s.mu.Lock()
	status := s.status
	s.tokens = append(s.tokens, r.Header.Get(wire.TokenHeader))
	s.mu.Unlock()
	if r.Method != http.MethodPost || r.URL.Path != wire.RegisterPath {
		status = http.StatusTeapot
	}
	if status != 0 {
		w.WriteHeader(status)
	} else {
		_ = json.NewEncoder(w).Encode(wire.Registered{Status: "registered", LinkSecret: secret, OwnerSeq: 1})
	}
	s.registered <- reg
}

// container is an agent under test.
type container struct {
	t      *testing.T
	svc    *service
	reg    wire.Registration
	addr   string
	work   string
	shared bool // somebody else works there
	logs   *logBuffer
	stop   context.CancelFunc // as SIGTERM does

	done chan struct{}
	err  error
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// config is that of an agent with stand-in browsers.
func config(t *testing.T, url string) agent.Config {
	return agent.Config{
		ContainerID: "cnt_1", RegisterURL: url, Token: token, MaxSessions: 2, Version: "test",
		Host: "127.0.0.1", Browser: os.Args[0], BrowserArgs: []string{standInFlag}, Warm: 1,
		WorkDir: t.TempDir(), StartTimeout: patient, DrainTimeout: time.Millisecond,
	}
}

// start runs an agent, and checks at the end of the test that nothing of it is left.
func start(t *testing.T, change func(*agent.Config)) *container {
	t.Helper()
	svc := newService(t)
	cfg := config(t, svc.url)
	if change != nil {
		change(&cfg)
	}
	c := &container{t: t, svc: svc, work: cfg.WorkDir, logs: &logBuffer{}, done: make(chan struct{})}
	cfg.Log = slog.New(slog.NewTextHandler(c.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go func() {
		defer close(c.done)
		c.err = agent.Run(ctx, cfg)
	}()
	t.Cleanup(c.finish)
	select {
	case c.reg = <-svc.registered:
	case <-c.done:
		t.Fatalf("the agent ended: %v", c.err)
	case <-time.After(patient):
		t.Fatal("no registration")
	}
	c.addr = net.JoinHostPort(c.reg.IP, strconv.Itoa(c.reg.Port))
	return c
}

func (c *container) finish() {
	c.stop()
	select {
	case <-c.done:
	case <-time.After(2 * patient):
		c.t.Fatal("the agent did not stop")
	}
	if left := directories(c.work); len(left) > 0 && !c.shared {
		c.t.Errorf("files left: %v", left)
	}
	if logs := c.logs.String(); strings.Contains(logs, "canary") {
		c.t.Errorf("a secret in the log:\n%s", logs)
	} else if c.t.Failed() {
		c.t.Logf("log of the agent:\n%s", logs)
	}
}

// directories lists those of agents below dir.
func directories(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// owner is a replica's end of the link.
type owner struct {
	t       *testing.T
	conn    *websocket.Conn
	n       uint64
	notices chan wire.Notice // closed when the link ends
	err     error            // why; after notices is closed
}

func (c *container) dialLink(seq int64, secret string) (*websocket.Conn, int) {
	c.t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial("ws://"+c.addr+wire.LinkPath, http.Header{
		"Authorization":     {"Bearer " + secret},
		wire.OwnerSeqHeader: {strconv.FormatInt(seq, 10)},
		wire.ReplicaHeader:  {"r1"},
	})
	if err != nil {
		if resp == nil {
			c.t.Fatalf("dialling the link: %v", err)
		}
		return nil, resp.StatusCode
	}
	return conn, resp.StatusCode
}

func (c *container) link(seq int64) *owner {
	c.t.Helper()
	conn, status := c.dialLink(seq, secret)
	if conn == nil {
		c.t.Fatalf("dialling the link: status %d", status)
	}
	o := &owner{t: c.t, conn: conn, notices: make(chan wire.Notice, 1024)}
	go func() {
		defer close(o.notices)
		for {
			var n wire.Notice
			if o.err = conn.ReadJSON(&n); o.err != nil {
				return
			}
			o.notices <- n
		}
	}()
	c.t.Cleanup(func() { _ = conn.Close() })
	return o
}

func (o *owner) order(w wire.Order) {
	o.t.Helper()
	o.n++
	w.N = o.n
	if err := o.conn.WriteJSON(w); err != nil {
		o.t.Fatalf("sending %s: %v", w.Type, err)
	}
}

// await gives the next notice for which is holds; it drops the others.
func (o *owner) await(what string, is func(wire.Notice) bool) wire.Notice {
	o.t.Helper()
	timeout := time.After(patient)
	var seen []string
	for {
		select {
		case n, ok := <-o.notices:
			if !ok {
				o.t.Fatalf("awaiting %s: the link ended: %v", what, o.err)
			}
			if is(n) {
				return n
			}
			text, _ := json.Marshal(n)
			seen = append(seen, string(text))
		case <-timeout:
			o.t.Fatalf("awaiting %s: not within %s; seen:\n%s", what, patient, strings.Join(seen, "\n"))
		}
	}
}

func (o *owner) notice(typ, id string) wire.Notice {
	o.t.Helper()
	return o.await(typ+" of "+id, func(n wire.Notice) bool { return n.Type == typ && n.SessionID == id })
}

func (o *owner) report(what string, is func(wire.Report) bool) wire.Report {
	o.t.Helper()
	n := o.await("a report: "+what, func(n wire.Notice) bool { return n.Type == wire.ReportState && is(*n.Report) })
	return *n.Report
}

func create(id string, bindRev int64, limits wire.Limits) wire.Order {
	return wire.Order{Type: wire.CreateSession, SessionID: id, BindRev: bindRev, UserID: "u", Limits: &limits}
}

// session has a session made and ready.
func (o *owner) session(id string, bindRev int64, limits wire.Limits) wire.Notice {
	o.t.Helper()
	o.order(create(id, bindRev, limits))
	n := o.notice(wire.SessionReady, id)
	if n.BindRev != bindRev {
		o.t.Fatalf("ready under binding %d, want %d", n.BindRev, bindRev)
	}
	return n
}

// client is the relay's end of a session's socket.
type client struct {
	*websocket.Conn
	t *testing.T
}

func (c *container) connect(id string) *client {
	c.t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial("ws://"+c.addr+wire.SessionsPath+id+"/devtools/browser",
		http.Header{"Authorization": {"Bearer " + secret}})
	if err != nil {
		body := ""
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			body = resp.Status + " " + string(b)
		}
		c.t.Fatalf("connecting to %s: %v %s", id, err, body)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patient))
	return &client{Conn: conn, t: c.t}
}

// ask sends a message and gives the answer.
func (c *client) ask(what string) string {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(what)); err != nil {
		c.t.Fatalf("asking %s: %v", what, err)
	}
	_, answer, err := c.ReadMessage()
	if err != nil {
		c.t.Fatalf("asking %s: %v", what, err)
	}
	return string(answer)
}

func (c *client) pid(what string) int {
	c.t.Helper()
	pid, err := strconv.Atoi(c.ask(what))
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// bye closes as a well-behaved client does.
func (c *client) bye(code int) {
	c.t.Helper()
	if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(patient)); err != nil {
		c.t.Fatal(err)
	}
}

// closed waits for the close frame that the client is told.
func (c *client) closed() *websocket.CloseError {
	c.t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if err == nil {
			continue
		}
		if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
			_ = c.Close()
			return ce
		}
		c.t.Fatalf("the socket ended without a close frame: %v", err)
	}
}

// get makes a plain request with the link secret.
func (c *container) get(method, path string, header http.Header) (int, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://"+c.addr+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	if req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// eventually waits until is holds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patient)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patient, what)
		}
		<-tick.C
	}
}

// dead tells whether there is no such process, or only its unreaped shell.
func dead(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
