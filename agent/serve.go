package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	// holdTimeout is how long a request waits for its session's browser; the service holds a
	// client no longer either.
	holdTimeout     = 25 * time.Second
	dialTimeout     = 5 * time.Second
	discoverTimeout = 5 * time.Second
	maxDiscovery    = 8 << 20 // json/protocol has some 1.5 MB
)

// handler serves health to anybody, and all else to who has the link secret.
func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.HealthPath, a.serveHealth)
	mux.HandleFunc("GET "+wire.LinkPath, a.serveLink)
	mux.HandleFunc(wire.SessionsPath+"{id}/{rest...}", a.serveSession)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "a container serves "+wire.HealthPath+", "+wire.LinkPath+" and "+wire.SessionsPath)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.enter() {
			refuse(w, http.StatusServiceUnavailable, "stopped", "the container has stopped")
			return
		}
		defer a.owned.Done()
		mux.ServeHTTP(w, r)
	})
}

func (a *agent) serveHealth(w http.ResponseWriter, _ *http.Request) {
	body := map[string]any{
		"status": "healthy", "sessions": a.held(), "maxSessions": a.cfg.MaxSessions,
		"containerId": a.cfg.ContainerID, "warm": a.pool.count(),
	}
	if err := a.pool.trouble(); err != nil {
		body["warning"] = "browsers do not start: see the container's log"
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

// serveSession serves what concerns one session's browser.
func (a *agent) serveSession(w http.ResponseWriter, r *http.Request) {
	if !a.reg.authorized(r) {
		refuse(w, http.StatusUnauthorized, "unauthorized", "the link secret is missing or wrong")
		return
	}
	s, err := a.find(r.PathValue("id"), r.Header.Get(wire.BindRevHeader))
	if err != nil {
		asRefusal(err).write(w)
		return
	}
	rest := strings.TrimSuffix(r.PathValue("rest"), "/")
	kind, tail, _ := strings.Cut(rest, "/")
	switch kind {
	case "devtools":
		s.serveDevTools(w, r, tail)
	case "json":
		s.serveDiscovery(w, r, tail)
	default:
		refuse(w, http.StatusNotFound, "not_found", "a session has devtools/browser, devtools/page/{target} and json/{version,list,protocol,new}")
	}
}

// serveDevTools joins the caller to the browser's socket, or to one target's.
func (s *session) serveDevTools(w http.ResponseWriter, r *http.Request, what string) {
	kind, target, _ := strings.Cut(what, "/")
	if kind != "browser" && (kind != "page" || !validID(target)) {
		refuse(w, http.StatusNotFound, "not_found", "the sockets of a session are devtools/browser and devtools/page/{target}")
		return
	}
	if err := tunnel.CheckUpgrade(r); err != nil {
		refuse(w, http.StatusBadRequest, "bad_upgrade", err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), holdTimeout)
	b, err := s.awaitBrowser(ctx)
	cancel()
	if err != nil {
		asRefusal(err).write(w)
		return
	}
	path := b.path // whatever browser id the caller named
	if kind == "page" {
		path = "/devtools/page/" + target
	}
	ctx, cancel = context.WithTimeout(r.Context(), dialTimeout)
	backend, err := tunnel.Dial(ctx, dialLoopback, b.addr, path, nil)
	cancel()
	if err != nil {
		s.refuseDial(w, kind, err)
		return
	}
	client, err := tunnel.Accept(w, r, nil)
	if err != nil {
		_ = backend.Conn.Close()
		s.agent.log.Debug("upgrade not accepted", "session", s.id, "error", err.Error())
		return
	}
	t := tunnel.New(client, backend, tunnel.Config{
		ClientGone:     tunnel.CloseFrame{Code: closeAway},
		WhyBackendGone: func() tunnel.CloseFrame { return s.farewell(b) },
	})
	s.attach(t)
	s.detach(t, t.Run())
}

// refuseDial answers for a browser that did not take the socket. Chromium says 500 of a
// target that it does not have.
func (s *session) refuseDial(w http.ResponseWriter, kind string, err error) {
	var refused *tunnel.HandshakeError
	if errors.As(err, &refused) && kind == "page" &&
		(refused.Status == http.StatusNotFound || refused.Status == http.StatusInternalServerError) {
		refuse(w, http.StatusNotFound, "target_unknown", "the session's browser has no such target")
		return
	}
	s.agent.log.Warn("browser refused a socket", "session", s.id, "error", err.Error())
	asRefusal(err).write(w)
}

// serveDiscovery passes on one of Chromium's plain HTTP endpoints. The answer's URLs name a
// host of no use to the caller, who puts in its own.
func (s *session) serveDiscovery(w http.ResponseWriter, r *http.Request, what string) {
	name, target, _ := strings.Cut(what, "/")
	known := false
	switch name {
	case "", "version", "list", "protocol", "new":
		known = target == ""
	case "activate", "close":
		known = validID(target)
	}
	if !known {
		refuse(w, http.StatusNotFound, "not_found", "json has version, list, protocol, new, activate/{target} and close/{target}")
		return
	}
	if r.Method != http.MethodGet && (r.Method != http.MethodPut || name != "new") {
		w.Header().Set("Allow", "GET")
		refuse(w, http.StatusMethodNotAllowed, "wrong_method", "use GET, or PUT for json/new")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), holdTimeout)
	b, err := s.awaitBrowser(ctx)
	cancel()
	if err != nil {
		asRefusal(err).write(w)
		return
	}
	u := url.URL{Scheme: "http", Host: b.addr, Path: strings.TrimSuffix("/json/"+what, "/")}
	if name == "new" {
		u.RawQuery = r.URL.RawQuery // the page to open
	}
	status, contentType, body, err := s.agent.discover(r.Context(), r.Method, u)
	if err != nil {
		s.agent.log.Warn("browser did not answer", "session", s.id, "error", err.Error())
		asRefusal(err).write(w)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// discover asks a browser. It sends none of the caller's headers: Chromium refuses whatever
// comes with an Origin or with a Host that is a name.
func (a *agent) discover(ctx context.Context, method string, u url.URL) (status int, contentType string, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking the browser: %w", err)
	}
	req.Host = "localhost"
	resp, err := a.browsers.RoundTrip(req) // follows no redirects
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking the browser: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxDiscovery+1))
	if err != nil {
		return 0, "", nil, fmt.Errorf("reading the browser's answer: %w", err)
	}
	if len(body) > maxDiscovery || resp.StatusCode < 200 || resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return 0, "", nil, fmt.Errorf("asking the browser: its answer (%s, %d bytes) is not one of DevTools'", resp.Status, len(body))
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), body, nil
}

// refuse answers with an error in JSON. The connection ends: what an impatient client has
// sent after its request must never be taken for another.
func refuse(w http.ResponseWriter, status int, code, message string) {
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(map[string]any{"error": map[string]string{"code": code, "message": message}})
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Connection", "close")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

func (r *refusal) write(w http.ResponseWriter) { refuse(w, r.status, r.code, r.message) }
