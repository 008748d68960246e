package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	discoveryTimeout = 2 * time.Second
	maxVersion       = 64 << 10
	maxList          = 1 << 20 // hundreds of tabs
)

// Fields of the browser's answers that name addresses.
const (
	fieldWebSocket = "webSocketDebuggerUrl"
	fieldFrontend  = "devtoolsFrontendUrl"
	fieldFrontend2 = "devtoolsFrontendUrlCompat"
)

// newTransport asks containers: a connection per request, no proxy, bounded heads. Redirects
// are not followed, since RoundTrip never does.
func newTransport(dial tunnel.DialFunc) *http.Transport {
	return &http.Transport{
		DialContext:            dial,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// serveDiscovery answers /json/version and /json/list with what the browser says, but for the
// addresses: those are ours.
func (r *Relay) serveDiscovery(w http.ResponseWriter, req *http.Request, access Access, what string) error {
	if req.Method != http.MethodGet {
		return &state.Refusal{
			Err:     state.ErrInvalid,
			Message: fmt.Sprintf("%s cannot be asked with %s", what, req.Method),
			Hint:    "use GET",
		}
	}
	limit, rewrite := int64(maxVersion), access.rewriteVersion
	if what != "/json/version" {
		what, limit, rewrite = "/json/list", maxList, access.rewriteList
	}
	var answer []byte
	err := r.reach(req.Context(), access, func(ctx context.Context, s *state.Session, c *state.Container) error {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		body, err := r.ask(ctx, s, c, what, limit)
		if err != nil {
			return err
		}
		answer, err = rewrite(body)
		return err
	})
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Cache-Control", "no-store") // it holds the token
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answer) // a client that is gone needs no answer
	return nil
}

// ask gets one answer of a session's browser.
func (r *Relay) ask(ctx context.Context, s *state.Session, c *state.Container, what string, limit int64) (body []byte, err error) {
	err = r.withSecrets(s, c, func(header http.Header) (err error) {
		body, err = r.askWith(ctx, s, c, what, limit, header)
		return err
	})
	return body, err
}

func (r *Relay) askWith(
	ctx context.Context, s *state.Session, c *state.Container, what string, limit int64, header http.Header,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Addr+wire.SessionsPath+s.ID+what, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", c.Addr, err)
	}
	req.Header = header
	resp, err := r.fetch.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", c.Addr, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &tunnel.HandshakeError{Status: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", c.Addr, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("asking %s: the answer is longer than %d bytes", c.Addr, limit)
	}
	return body, nil
}

// rewriteVersion puts our address into the answer to /json/version.
func (a Access) rewriteVersion(body []byte) ([]byte, error) {
	var version map[string]json.RawMessage
	if err := json.Unmarshal(body, &version); err != nil || version == nil {
		return nil, errors.New("the browser's version is not a JSON object")
	}
	var original string
	_ = json.Unmarshal(version[fieldWebSocket], &original) // no string: no id below
	browser := path.Base(original)
	if !strings.Contains(original, "/devtools/browser/") || !state.ValidID(browser) {
		return nil, errors.New("the browser's version names no browser")
	}
	if err := a.setWebSocket(version, "browser", browser); err != nil {
		return nil, err
	}
	return json.Marshal(version)
}

// rewriteList puts our addresses into the answer to /json/list.
func (a Access) rewriteList(body []byte) ([]byte, error) {
	var targets []map[string]json.RawMessage
	if err := json.Unmarshal(body, &targets); err != nil || targets == nil {
		return nil, errors.New("the browser's list is not a JSON array of objects")
	}
	kept := targets[:0]
	for _, t := range targets {
		var id string
		if json.Unmarshal(t["id"], &id) != nil || !state.ValidID(id) {
			continue
		}
		if err := a.setWebSocket(t, "page", id); err != nil {
			return nil, err
		}
		kept = append(kept, t)
	}
	return json.Marshal(kept)
}

// setWebSocket replaces the addresses of a target by ours.
func (a Access) setWebSocket(target map[string]json.RawMessage, kind, id string) error {
	delete(target, fieldFrontend)
	delete(target, fieldFrontend2)
	encoded, err := json.Marshal(a.webSocketURL(kind, id))
	if err != nil {
		return fmt.Errorf("encoding an address: %w", err)
	}
	target[fieldWebSocket] = encoded
	return nil
}

// webSocketURL is the public address of a target of the session, token included.
func (a Access) webSocketURL(kind, id string) string {
	u := url.URL{
		Scheme: "ws",
		Host:   a.PublicURL.Host,
		Path:   path.Join("/", a.PublicURL.Path, wire.SessionsPath, a.SessionID, "devtools", kind, id),
	}
	if a.PublicURL.Scheme == "https" || a.PublicURL.Scheme == "wss" {
		u.Scheme = "wss"
	}
	if a.Token != "" {
		u.RawQuery = url.Values{"token": {a.Token}}.Encode()
	}
	return u.String()
}
