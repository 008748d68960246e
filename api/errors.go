package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// retry is what the answer tells the SDKs about sending the request again.
type retry string

const (
	retryAsUsual retry = ""      // their own rule for the status is right
	retryYes     retry = "true"  // the same request may well pass soon
	retryNo      retry = "false" // only a different request can pass
)

// answer is how one kind of error leaves the service.
type answer struct {
	status  int
	code    string
	message string // used unless the error brings its own for the other end
	hint    string // likewise
	retry   retry
	after   time.Duration // Retry-After unless the error brings its own; zero: none
}

// row ties a sentinel to its answer.
type row struct {
	err error
	answer
}

// table is the one place where errors become statuses. The first row that matches counts.
func table() []row {
	return []row{
		{state.ErrInvalid, answer{http.StatusBadRequest, "invalid_request", "the request is malformed", "mend the request; sending it again as it is will not help", retryAsUsual, 0}},
		{state.ErrUnauthorized, answer{http.StatusUnauthorized, "unauthorized", "the credential is missing or wrong", "send a credential that this server knows", retryAsUsual, 0}},
		{state.ErrForbidden, answer{http.StatusForbidden, "forbidden", "the credential is not good for this", "use the credential that was made for this", retryAsUsual, 0}},
		{state.ErrNotFound, answer{http.StatusNotFound, "not_found", "there is no such thing here", "check the id in the path", retryAsUsual, 0}},
		{state.ErrExists, answer{http.StatusConflict, "already_exists", "the id is taken already", "choose another id", retryNo, 0}},
		{state.ErrConflict, answer{http.StatusConflict, "conflict", "it was changed by somebody else at the same time", "read it again, then repeat the request", retryYes, time.Second}},
		{state.ErrDialect, answer{http.StatusConflict, "other_protocol", "the pool speaks another version of the link", "set POOL_PROTOCOL, or wait until the pool is empty", retryNo, 0}},
		{state.ErrEnded, answer{http.StatusGone, "session_ended", "the session has ended", "create a new session", retryNo, 0}},
		{state.ErrNotReady, answer{http.StatusServiceUnavailable, "not_ready", "the session has no browser yet", "try again shortly", retryYes, 2 * time.Second}},
		{state.ErrFull, answer{http.StatusServiceUnavailable, "no_capacity", "there is no room now", "try again shortly, or release sessions", retryYes, 5 * time.Second}},
		{state.ErrDraining, answer{http.StatusServiceUnavailable, "draining", "this replica takes no new work", "send the request again; another replica takes it", retryYes, time.Second}},
		{state.ErrUnavailable, answer{http.StatusServiceUnavailable, "unavailable", "the store cannot be reached", "try again shortly; sessions that are connected go on", retryYes, 2 * time.Second}},
		{state.ErrThrottled, answer{http.StatusServiceUnavailable, "unavailable", "AWS asks for fewer calls", "try again shortly", retryYes, 2 * time.Second}},
		{state.ErrRolledBack, answer{http.StatusServiceUnavailable, "unavailable", "the store is being rebuilt", "try again shortly; sessions that are connected go on", retryYes, 5 * time.Second}},
		{state.ErrFenced, answer{http.StatusServiceUnavailable, "unavailable", "another replica has taken over", "try again shortly; sessions that are connected go on", retryYes, time.Second}},
		{state.ErrOtherDeployment, answer{http.StatusServiceUnavailable, "other_deployment", "the store belongs to another deployment", "give this service a store of its own, or its deployment's name", retryNo, 0}},
		{errNotImplemented, answer{http.StatusNotImplemented, "not_implemented", "this is not offered here", "sessions are created, listed, read and released under /v1/sessions", retryNo, 0}},
		{errTooLarge, answer{http.StatusRequestEntityTooLarge, "too_large", "the request's body is too large", "send less", retryNo, 0}},
		{errNoRoute, answer{http.StatusNotFound, "no_such_route", "there is nothing at this path", "check the base URL; sessions are under /v1/sessions", retryAsUsual, 0}},
		{errWrongMethod, answer{http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take that method", "check the method; sessions are created with POST, read with GET, released with DELETE", retryAsUsual, 0}},
		{errUnsupported, answer{http.StatusBadRequest, "unsupported_field", "a field is not supported", "leave the field out", retryAsUsual, 0}},
		{errBodyLate, answer{http.StatusRequestTimeout, "body_timeout", "the request's body did not arrive in time", "send the whole body at once", retryAsUsual, 0}},
		{context.DeadlineExceeded, answer{http.StatusServiceUnavailable, "unavailable", "the store did not answer in time", "try again shortly; sessions that are connected go on", retryYes, 2 * time.Second}},
		// Nobody reads this one: the client has gone. The status is the log's.
		{context.Canceled, answer{statusClientGone, "client_gone", "the client has gone", "stay for the answer", retryAsUsual, 0}},
	}
}

// statusClientGone is what nginx made known for this; no client ever sees it.
const statusClientGone = 499

// Outcomes that belong to HTTP alone.
var (
	errNotImplemented = errors.New("not implemented")
	errTooLarge       = errors.New("too large")
	errNoRoute        = errors.New("no such route")
	errWrongMethod    = errors.New("method not allowed")
	errUnsupported    = errors.New("unsupported field")
	errBodyLate       = errors.New("body did not arrive in time")
)

// errorJSON is the body of every error.
type errorJSON struct {
	Error      string       `json:"error"`
	Code       string       `json:"code"`
	Message    string       `json:"message"`
	Hint       string       `json:"hint,omitempty"`
	Reason     state.Reason `json:"reason,omitempty"`
	RetryAfter int          `json:"retryAfter,omitempty"` // seconds
	RequestID  string       `json:"requestId"`
}

// explain finds the answer to an error, and whether the error is one that we know of.
func explain(err error) (answer, errorJSON, bool) {
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		err = &state.Refusal{Err: errTooLarge, Message: fmt.Sprintf("the request's body is larger than %d bytes", over.Limit)}
	}
	if he := (*echo.HTTPError)(nil); errors.As(err, &he) {
		switch he.Code {
		case http.StatusNotFound:
			err = errNoRoute
		case http.StatusMethodNotAllowed:
			err = errWrongMethod
		}
	}
	for _, row := range table() {
		if !errors.Is(err, row.err) {
			continue
		}
		a, body := row.answer, errorJSON{Message: row.message, Hint: row.hint}
		if refusal := (*state.Refusal)(nil); errors.As(err, &refusal) {
			if refusal.Message != "" {
				body.Message = refusal.Message
			}
			if refusal.Hint != "" {
				body.Hint = refusal.Hint
			}
			body.Reason = refusal.Reason
			if refusal.RetryAfter > 0 {
				a.after = refusal.RetryAfter
			}
		}
		body.Error, body.Code = a.code, a.code
		return a, body, true
	}
	a := answer{status: http.StatusInternalServerError, code: "internal", message: "internal error"}
	return a, errorJSON{Error: a.code, Code: a.code, Message: a.message,
		Hint: "report the requestId to the operator; the log has the cause"}, false
}

// fail is echo's error handler: every error of every route passes here, once.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed || hijacked(c) {
		// Too late to say anything. It is logged if it is news.
		if _, _, known := explain(err); !known {
			s.log.Error("answer broken off", "request", requestID(c), "route", route(c), "error", credentialsOf(c.Request()).scrub(err.Error()))
		}
		return
	}
	creds := credentialsOf(c.Request())
	a, body, known := explain(err)
	if !known {
		s.log.Error("request failed", "request", requestID(c), "route", route(c), "error", creds.scrub(err.Error()))
	}
	body.Message, body.Hint = creds.scrub(body.Message), creds.scrub(body.Hint)
	body.RequestID = requestID(c)
	header := c.Response().Header()
	header.Del("ETag")
	header.Set("Cache-Control", "no-store")
	if a.after > 0 {
		// Rounded up: a client that comes a moment early is refused again.
		body.RetryAfter = int((a.after + time.Second - 1) / time.Second)
		header.Set("Retry-After", strconv.Itoa(body.RetryAfter))
	}
	if a.retry != retryAsUsual {
		header.Set("X-Should-Retry", string(a.retry))
	}
	if a.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	// After a refused upgrade the client's next bytes may be WebSocket frames, sent early:
	// they must never be read as a request.
	if c.Request().Header.Get("Upgrade") != "" {
		header.Set("Connection", "close")
	}
	if c.Request().Method == http.MethodHead {
		c.Response().WriteHeader(a.status)
		return
	}
	if err := c.JSON(a.status, body); err != nil {
		s.log.Debug("error not delivered", "request", requestID(c), "error", creds.scrub(err.Error()))
	}
}
