package api

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// Keys in echo's context.
const (
	keyRequestID = "requestID"
	keyUser      = "user"
	keyWriter    = "writer"
)

// maxRequestID bounds the request ids that we take over from clients.
const maxRequestID = 64

// observe gives every request its id and security headers, survives its panics, and leaves
// one log line and two metrics. It knows the route's pattern only, never the path or query.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		writer := &hijackWriter{ResponseWriter: c.Response().Writer}
		c.Response().Writer = writer
		c.Set(keyWriter, writer)
		c.Set(keyRequestID, s.requestIDFor(c.Request()))

		header := c.Response().Header()
		header.Set("X-Request-Id", requestID(c))
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

		if c.Request().ContentLength != 0 {
			s.limitBody(c, start.Add(s.bodyTimeout))
		}
		if err := s.survive(c, next); err != nil {
			c.Error(err)
		}

		status, took := c.Response().Status, time.Since(start)
		if writer.hijacked {
			status = http.StatusSwitchingProtocols
		} else {
			s.metrics.seconds.WithLabelValues(route(c)).Observe(took.Seconds())
		}
		s.metrics.requests.WithLabelValues(route(c), class(status)).Inc()
		level := slog.LevelInfo
		if quiet(route(c)) && status < 400 {
			level = slog.LevelDebug
		}
		user, _ := c.Get(keyUser).(string)
		s.log.Log(c.Request().Context(), level, "request served", "request", requestID(c), "method", method(c.Request()),
			"route", route(c), "status", status, "took", took, "user", user)
		return nil
	}
}

// survive turns a panic into an error: one request is lost, nothing else.
func (s *Server) survive(c echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if abort, ok := cause.(error); ok && errors.Is(abort, http.ErrAbortHandler) {
			panic(cause)
		}
		s.metrics.panics.Inc()
		s.log.Error("request panicked", "request", requestID(c), "route", route(c),
			"panic", credentialsOf(c.Request()).scrub(fmt.Sprint(cause)), "stack", string(debug.Stack()))
		err = errPanicked
	}()
	return next(c)
}

// errPanicked is unknown to the table on purpose: it is answered as an internal error.
var errPanicked = errors.New("the handler panicked; its stack is logged under the same request")

// requestIDFor takes over the client's request id if it is sane and no credential.
func (s *Server) requestIDFor(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id != "" && len(id) <= maxRequestID && state.ValidID(strings.ReplaceAll(id, ".", "-")) && credentialsOf(r).scrub(id) == id {
		return id
	}
	return "req_" + rand.Text()[:16]
}

func requestID(c echo.Context) string {
	id, _ := c.Get(keyRequestID).(string)
	return id
}

// route is the pattern of the route: a closed set, for logs and metrics.
func route(c echo.Context) string {
	if path := c.Path(); path != "" {
		return path
	}
	return "none"
}

// quiet routes are polled by machines: their successes would drown the log.
func quiet(route string) bool {
	return route == "/health" || route == "/started" || route == "/ready" || route == "/metrics"
}

// method is the request's method if it is a usual one: it may be any word.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method
	}
	return "other"
}

// class is the status by hundreds, a closed set.
func class(status int) string {
	switch {
	case status < 200:
		return "1xx"
	case status < 300:
		return "2xx"
	case status < 400:
		return "3xx"
	case status < 500:
		return "4xx"
	default:
		return "5xx"
	}
}

// hijackWriter remembers that somebody took the connection over: nothing may be written then.
type hijackWriter struct {
	http.ResponseWriter
	hijacked bool // written by the handler's goroutine only
}

// Hijack takes the connection over.
func (w *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
	}
	return conn, buffer, err
}

// Unwrap serves http.ResponseController.
func (w *hijackWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func hijacked(c echo.Context) bool {
	writer, ok := c.Get(keyWriter).(*hijackWriter)
	return ok && writer.hijacked
}

// authenticated lets requests with a known API key pass, and notes whose it is.
func (s *Server) authenticated(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		key, err := credentialsOf(c.Request()).apiKey()
		if err != nil {
			return err
		}
		user, known := s.keys.User(key)
		if !known {
			return &state.Refusal{Err: state.ErrUnauthorized, Message: "the API key is not known here",
				Hint: "use a key that this server was started with"}
		}
		c.Set(keyUser, user)
		return next(c)
	}
}

func userOf(c echo.Context) string {
	user, _ := c.Get(keyUser).(string)
	return user
}

// limitBody bounds the wait for the request's body, whether somebody reads it or the server
// drops it after an early answer. The next request on the connection starts anew.
func (s *Server) limitBody(c echo.Context, until time.Time) {
	// Writers that know no deadlines are those of tests.
	_ = http.NewResponseController(c.Response()).SetReadDeadline(until)
}

// serversOwn gives the writer that all others wrap.
func serversOwn(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// readBody reads at most limit bytes of body, within the time that a body may take.
func (s *Server) readBody(c echo.Context, limit int64) ([]byte, error) {
	request := c.Request()
	// Only the server's own writer learns that a body is too large. It then lets the client
	// read the answer before it closes the connection under what is still being sent.
	w := serversOwn(c.Response())
	if request.ContentLength > limit {
		if request.Header.Get("Expect") == "" { // else nothing was sent, and reading would ask for it
			_, _ = http.MaxBytesReader(w, request.Body, 0).Read(make([]byte, 1))
		}
		return nil, &http.MaxBytesError{Limit: limit}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, limit))
	if err == nil {
		// All is here: the handler may now take its time. After an error the deadline stays,
		// so that the server does not wait for the rest either.
		s.limitBody(c, time.Time{})
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &state.Refusal{Err: errBodyLate, Message: fmt.Sprintf("the request's body did not arrive within %v", s.bodyTimeout)}
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, err
	case err != nil:
		return nil, &state.Refusal{Err: state.ErrInvalid, Message: "the request's body broke off"}
	}
	return body, nil
}
