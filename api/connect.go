package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// maxRest bounds the path below a session, in bytes.
const maxRest = 256

// connect lets a client through to its session: the socket itself and the discovery of it.
func (s *Server) connect(c echo.Context) error {
	access, err := s.access(c)
	if err != nil {
		return err
	}
	// Equal ids before anything is looked up: the answer does not tell whether the other
	// session exists.
	if c.Param("id") != access.SessionID {
		return &state.Refusal{Err: state.ErrForbidden, Message: "the token is not good for this session",
			Hint: "use the session's own connectUrl"}
	}
	rest := c.Param("*")
	if c.Request().URL.RawPath != "" || !plainPath(rest) {
		return errNoRoute
	}
	return s.hand(c, access, rest)
}

// discover answers /json/version at the root: the token alone names the session.
func (s *Server) discover(c echo.Context) error {
	access, err := s.access(c)
	if err != nil {
		return err
	}
	return s.hand(c, access, "json/version")
}

// access proves who asks.
func (s *Server) access(c echo.Context) (SessionAccess, error) {
	token, err := credentialsOf(c.Request()).sessionToken()
	if err != nil {
		return SessionAccess{}, err
	}
	claims, err := s.tokens.Verify(token.Reveal())
	if err != nil {
		return SessionAccess{}, err
	}
	c.Set(keyUser, claims.UserID)
	base, err := s.base(c.Request())
	if err != nil {
		return SessionAccess{}, err
	}
	access := SessionAccess{SessionID: claims.SessionID, UserID: claims.UserID, Token: token, Base: base}
	if w, ok := serversOwn(c.Response()).(*upgradeWriter); ok {
		access.Watch, access.Gone = w.Watch, w.Gone
	}
	return access, nil
}

// hand gives the request to the relay.
func (s *Server) hand(c echo.Context, access SessionAccess, rest string) error {
	return s.relay.ServeSession(c.Response(), c.Request(), access, rest)
}

// plainPath tells whether a path has ordinary segments only.
func plainPath(path string) bool {
	if len(path) > maxRest {
		return false
	}
	for _, c := range []byte(path) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.', c == '/':
		default:
			return false
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.HasPrefix(path, "/") && !strings.Contains(path, "//")
}

// base is the URL that this service has in the client's eyes. Without a configured one the
// request's own Host is believed: it comes back to its sender only.
func (s *Server) base(r *http.Request) (*url.URL, error) {
	if s.publicURL != nil {
		base := *s.publicURL
		return &base, nil
	}
	if !plainHost(r.Host) {
		return nil, invalid("the Host header names no plain host", "send host or host:port")
	}
	scheme := "http"
	// The first of several is the client's own.
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if r.TLS != nil || strings.EqualFold(strings.TrimSpace(forwarded), "https") {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: r.Host}, nil
}

// plainHost tells whether a Host header is host, host:port, an IPv4 or a bracketed IPv6 address.
func plainHost(host string) bool {
	if host == "" || len(host) > 261 {
		return false
	}
	for _, c := range []byte(host) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '_', c == '-', c == '.', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	parsed, err := url.Parse("http://" + host)
	return err == nil && parsed.Host == host && parsed.Hostname() != ""
}

// connectURL is what a client opens.
func connectURL(base *url.URL, id string, token auth.Secret) string {
	u := *base
	u.Scheme = "ws"
	if base.Scheme == "https" {
		u.Scheme = "wss"
	}
	u.Path = base.Path + "/sessions/" + id + "/ws"
	u.RawQuery = url.Values{"token": {token.Reveal()}}.Encode()
	return u.String()
}
