package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// idLength gives ids of 131 bits.
	idLength = 22
	// finalTTL is how long a document lives on after it asked for the end: as the Lambdas do.
	finalTTL = 300 * time.Second
)

// createSession writes the document of a session and waits a moment for its browser. The
// answer holds a connectUrl either way: connecting waits for the rest.
func (s *Server) createSession(c echo.Context) error {
	start := time.Now()
	if err := s.refuseNewWork(); err != nil {
		return err
	}
	base, err := s.base(c.Request())
	if err != nil {
		return err
	}
	body, err := s.readBody(c, s.maxBody)
	if err != nil {
		return err
	}
	wish, err := parseCreation(body, s.defaultTimeout)
	if err != nil {
		return err
	}

	v := view{id: newSessionID(), user: userOf(c)}
	text, err := s.documentText(&v, wish)
	if err != nil {
		return err
	}
	if err := s.withStore(c, func(ctx context.Context) error {
		return s.store.CreateDocument(ctx, v.id, text, wish.timeout)
	}); err != nil {
		return fmt.Errorf("creating session %s: %w", v.id, err)
	}
	s.log.Info("session created", "session", v.id, "user", v.user, "timeout", wish.timeout, "request", requestID(c))

	v.status = s.awaitBrowser(c.Request().Context(), v.id)
	s.metrics.creates.WithLabelValues(sourceOf(v.status)).Observe(time.Since(start).Seconds())
	if s.created != nil {
		s.created(v.id, start, c.Request().Header)
	}
	out, err := s.connected(v, base)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, out)
}

func (s *Server) documentText(v *view, wish creation) ([]byte, error) {
	doc := documentJSON{
		SessionID: v.id, UserID: v.user, Status: state.StatusPending, CreatedAt: stamp(s.now()),
		Timeout: wish.timeout.Milliseconds(), KeepAlive: wish.keepAlive, Origin: state.OriginAPI,
		ProjectID: wish.projectID, Region: wish.region, UserMetadata: wish.metadata,
	}
	if wish.settings != (settings{}) {
		doc.BrowserSettings = &wish.settings
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(doc); err != nil {
		return nil, fmt.Errorf("encoding the document of session %s: %w", v.id, err)
	}
	out := bytes.TrimSpace(text.Bytes())
	v.readSpec(out)
	return out, nil
}

// now is the store's time, or ours before the store was ever read.
func (s *Server) now() time.Time {
	if now := s.mirror.Now(); now.Unix() > 0 {
		return now
	}
	return time.Now()
}

// awaitBrowser waits until the session is ready or over, createWait at most, and returns
// what is known of it then.
func (s *Server) awaitBrowser(ctx context.Context, id string) *state.Session {
	ctx, cancel := context.WithTimeout(ctx, s.createWait)
	defer cancel()
	session, err := s.mirror.Await(ctx, id, func(session *state.Session) bool {
		return session != nil && (session.Phase == state.Ready || session.Phase == state.Ending || session.Phase == state.Ended)
	})
	if err == nil && session != nil {
		return session
	}
	session, _ = s.mirror.Session(id)
	return session
}

func sourceOf(session *state.Session) string {
	switch {
	case session == nil || session.Phase == state.Pending || session.Phase == state.Bound:
		return sourcePending
	case session.Phase != state.Ready:
		return sourceError
	case session.Cold:
		return sourceCold
	default:
		return sourceWarm
	}
}

// listSessions lists the sessions of the key's user, the newest first: live ones, and those
// that ended within the last minutes.
func (s *Server) listSessions(c echo.Context) error {
	status := c.QueryParam("status")
	if status != "" && !slices.Contains(statuses(), status) {
		return invalid("status must be one of "+strings.Join(statuses(), ", "), "")
	}
	matches, err := metadataQuery(c.QueryParam("q"))
	if err != nil {
		return err
	}
	views := []view{}
	for _, session := range s.mirror.Sessions() {
		if session.UserID != userOf(c) {
			continue
		}
		v := viewOf(session)
		if (status == "" || v.state() == status) && matches(v.spec.UserMetadata) {
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b view) int {
		return cmp.Or(b.created().Compare(a.created()), cmp.Compare(a.id, b.id))
	})
	out := make([]*sessionJSON, 0, len(views))
	for i := range views {
		out = append(out, views[i].json())
	}
	return c.JSON(http.StatusOK, out)
}

var metadataForm = regexp.MustCompile(`^\s*user_metadata\['([^'\\]{1,256})'\]\s*:\s*'([^'\\]{0,512})'\s*$`)

// metadataQuery understands user_metadata['key']:'value'. Values that are not strings are
// compared as their JSON text.
func metadataQuery(q string) (func(json.RawMessage) bool, error) {
	if strings.TrimSpace(q) == "" {
		return func(json.RawMessage) bool { return true }, nil
	}
	found := metadataForm.FindStringSubmatch(q)
	if found == nil {
		return nil, invalid("q must be user_metadata['key']:'value'", "one key and one value, compared for equality")
	}
	return func(metadata json.RawMessage) bool {
		var fields map[string]json.RawMessage
		if json.Unmarshal(metadata, &fields) != nil {
			return false
		}
		raw, has := fields[found[1]]
		if !has {
			return false
		}
		var value string
		if json.Unmarshal(raw, &value) != nil {
			value = string(raw)
		}
		return value == found[2]
	}, nil
}

func (s *Server) getSession(c echo.Context) error {
	base, err := s.base(c.Request())
	if err != nil {
		return err
	}
	v, err := s.find(c)
	if err != nil {
		return err
	}
	out, err := s.connected(v, base)
	if err != nil {
		return err
	}
	out.Clients = s.clients(v.id)
	return c.JSON(http.StatusOK, out)
}

// updateSession takes the one update there is: the release.
func (s *Server) updateSession(c echo.Context) error {
	body, err := s.readBody(c, s.maxBody)
	if err != nil {
		return err
	}
	if err := checkJSON(body); err != nil {
		return err
	}
	status, project := "", ""
	if err := readObject("", body, "status, projectId", map[string]reader{
		"status": text(&status, 64, nil, ""), "projectId": text(&project, 128, nil, ""),
	}); err != nil {
		return err
	}
	if status != "REQUEST_RELEASE" {
		return invalid("status must be REQUEST_RELEASE", "that ends the session; nothing else can be set")
	}
	return s.release(c)
}

func (s *Server) deleteSession(c echo.Context) error { return s.release(c) }

// release asks for the end of a session, in its document: what is bound is ended by whoever
// holds it. Asked again, it changes nothing.
func (s *Server) release(c echo.Context) error {
	v, err := s.find(c)
	if err != nil {
		return err
	}
	if !v.live() {
		return c.JSON(http.StatusOK, v.json())
	}
	err = s.withStore(c, func(ctx context.Context) error {
		return s.store.EditDocument(ctx, v.id, finalTTL, func(text []byte) ([]byte, error) {
			return s.terminated(v.id, text)
		})
	})
	switch {
	case errors.Is(err, errAsked):
		// The wish stands already; its time runs from when it was made.
	case errors.Is(err, state.ErrNotFound):
		if err := s.leaveWish(c, v); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("releasing session %s: %w", v.id, err)
	default:
		s.log.Info("session released", "session", v.id, "user", v.user, "request", requestID(c))
	}
	v.asked = true
	return c.JSON(http.StatusOK, v.json())
}

// leaveWish writes the wish for the end of a session whose document is missing: without it,
// the document might be written again and the session go on.
func (s *Server) leaveWish(c echo.Context, v view) error {
	if v.status == nil {
		return nil // nothing was admitted, nothing is left
	}
	wish := []byte(v.status.Spec)
	if _, err := state.ParseSpec(v.id, wish); err != nil {
		wish = []byte("{}")
	}
	for field, value := range map[string]string{"sessionId": v.id, "userId": v.user} {
		edited, err := state.SetField(wish, field, value)
		if err != nil {
			return fmt.Errorf("releasing session %s: %w", v.id, err)
		}
		wish = edited
	}
	wish, err := s.terminated(v.id, wish)
	if err != nil && !errors.Is(err, errAsked) {
		return fmt.Errorf("releasing session %s: %w", v.id, err)
	}
	err = s.withStore(c, func(ctx context.Context) error { return s.store.CreateDocument(ctx, v.id, wish, finalTTL) })
	if errors.Is(err, state.ErrExists) {
		// Written again in between: the client's next try finds it.
		return &state.Refusal{Err: state.ErrConflict, Message: "the session was changed by somebody else at the same time", Hint: "release it again"}
	}
	if err != nil {
		return fmt.Errorf("releasing session %s: %w", v.id, err)
	}
	return nil
}

// errAsked says that a document asks for the end already. It never leaves this file.
var errAsked = errors.New("the end is asked for already")

// terminated edits a document into the wish for its end.
func (s *Server) terminated(id string, text []byte) ([]byte, error) {
	spec, err := state.ParseSpec(id, text)
	if err != nil {
		return nil, &state.Refusal{Err: state.ErrConflict, Message: "the session's document cannot be read", Hint: "write it anew, or wait for its end"}
	}
	if spec.Final() {
		return nil, errAsked
	}
	text, err = state.SetField(text, "status", state.StatusTerminated)
	if err != nil {
		return nil, err
	}
	return state.SetField(text, "terminatedAt", stamp(s.now()))
}

// find looks a session of the key's user up: in the mirror, then in the store, then among
// the documents not yet admitted. Somebody else's session is as unknown as none.
func (s *Server) find(c echo.Context) (view, error) {
	unknown := &state.Refusal{Err: state.ErrNotFound, Message: "there is no such session", Hint: "list the sessions of this key with GET /v1/sessions"}
	id := c.Param("id")
	if !state.ValidID(id) {
		return view{}, unknown
	}
	v, err := s.look(c, id)
	if errors.Is(err, state.ErrNotFound) {
		return view{}, unknown
	}
	if err != nil {
		return view{}, fmt.Errorf("looking up session %s: %w", id, err)
	}
	if v.user != userOf(c) {
		return view{}, unknown
	}
	return v, nil
}

func (s *Server) look(c echo.Context, id string) (view, error) {
	if session, ok := s.mirror.Session(id); ok {
		return viewOf(session), nil
	}
	var v view
	err := s.withStore(c, func(ctx context.Context) error {
		session, err := s.store.Session(ctx, id)
		if err == nil {
			v = viewOf(session)
			return nil
		}
		if !errors.Is(err, state.ErrNotFound) {
			return err
		}
		doc, err := s.store.Document(ctx, id)
		if err != nil {
			return err
		}
		if doc.Missing || doc.Err != nil {
			return state.ErrNotFound
		}
		v = viewOfDocument(doc)
		return nil
	})
	return v, err
}

// withStore bounds one request's dealings with the store.
func (s *Server) withStore(c echo.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), storeTimeout)
	defer cancel()
	return do(ctx)
}

// newSessionID draws an id: unguessable, and fit for a key and a path.
func newSessionID() string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := make([]byte, 0, idLength)
	buffer := make([]byte, 2*idLength)
	for len(id) < idLength {
		_, _ = rand.Read(buffer) // never fails
		for _, b := range buffer {
			// 248 is the largest multiple of 62: above it, some letters would be likelier.
			if b < 248 && len(id) < idLength {
				id = append(id, alphabet[b%62])
			}
		}
	}
	return "ses_" + string(id)
}
