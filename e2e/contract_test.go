package e2e

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
)

// The original's world around the built program: containers of the v1 dialect as ECS tasks,
// and a writer that does to Redis what the original's Lambdas do, in the original's
// environment. Neither shares code with the program.

// original is the world, with a service in it.
type original struct {
	*service
	fleet *v1Fleet
	ids   int
}

// originalSecret is stored as the original's stack stores it; the key is made of the whole.
const originalSecret = `{"JWE_SECRET":"canaryOriginalSecretOfTheDeployment"}`

// bigAnswer is the method that a container answers with 40 MiB.
const bigAnswer = "Page.captureScreenshot"

// startOriginal starts a service that knows nothing but the original's variables, and those
// that a test must set on one machine.
func startOriginal(t *testing.T, env map[string]string, configure func(*v1container.Config)) *original {
	t.Helper()
	redis := startRedis(t, "")
	w := &original{fleet: newV1Fleet(redis.client)}
	w.fleet.configure = configure
	usual := map[string]string{"JWE_SECRET": originalSecret, "MIN_CONTAINERS": "1", "MAX_CONTAINERS": "3", "POOL_PROTOCOL": "v1", "DISCONNECT_GRACE": "30s"}
	maps.Copy(usual, env)
	w.service = newService(t, serviceOptions{redis: redis, run: w.fleet.run, env: usual})
	// The stack's other spelling, and nothing of ours for tokens.
	w.env["BROWSER_TASK_DEFINITION_ARN"] = w.env["CONTAINER_TASK_DEF"]
	delete(w.env, "CONTAINER_TASK_DEF")
	delete(w.env, "JWT_SECRET")
	delete(w.secrets, "JWT_SECRET")
	w.secrets["JWE_SECRET"] = originalSecret
	w.env["CONTAINER_SECURITY_GROUP_ID"], w.env["REDIS_TLS_ENABLED"] = "sg-local", "false"
	w.start(t)
	w.awaitReady(t)
	w.awaitContainer(t)
	return w
}

// id gives a new session's id.
func (w *original) id() string {
	w.ids++
	return "ses_" + strconv.FormatInt(time.Now().UnixMilli(), 10) + "_" + strconv.Itoa(w.ids)
}

// wish writes a document as create-session does. extra follows its fields, as it is.
func (w *original) wish(t *testing.T, id, extra string, timeout time.Duration) (text string) {
	t.Helper()
	text = fmt.Sprintf(`{"sessionId":%q,"userId":"user_dev-key-","status":"pending","createdAt":"2026-01-02T03:04:05.678Z","timeout":%d%s}`,
		id, timeout.Milliseconds(), extra)
	w.write(t, id, text, timeout)
	return text
}

// write is SETEX.
func (w *original) write(t *testing.T, id, text string, ttl time.Duration) {
	t.Helper()
	if err := w.redis.client.Do(t.Context(), "SETEX", "session:"+id, int(ttl.Seconds()), text).Err(); err != nil {
		t.Fatal(err)
	}
}

// document reads one as the Lambdas do.
func (w *original) document(t *testing.T, id string) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(w.redis.get(t, "session:"+id)), &fields); err != nil {
		t.Fatalf("list-sessions would fail at session:%s: %v", id, err)
	}
	return fields
}

// finish writes the final word of delete-session or cleanup: over the whole document, with
// 300 s to live.
func (w *original) finish(t *testing.T, id, status, at string) {
	t.Helper()
	fields := w.document(t, id)
	fields["status"], fields[at] = status, time.Now().UTC().Format(time.RFC3339)
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, id, string(text), 300*time.Second)
}

// awaitStatus waits for a status in the document.
func (w *original) awaitStatus(t *testing.T, id, status string) {
	t.Helper()
	eventually(t, 60*time.Second, "session "+id+" is "+status, func() error {
		if now := w.document(t, id)["status"]; now != status {
			return fmt.Errorf("it is %v", now)
		}
		return nil
	})
}

// ready makes a session that has a browser.
func (w *original) ready(t *testing.T) string {
	t.Helper()
	id := w.id()
	w.wish(t, id, "", time.Hour)
	w.awaitStatus(t, id, "ready")
	return id
}

// home is the container that holds a session.
func (w *original) home(t *testing.T, id string) *v1container.Container {
	t.Helper()
	var found *v1container.Container
	eventually(t, 30*time.Second, "a container holds "+id, func() error {
		w.fleet.mu.Lock()
		defer w.fleet.mu.Unlock()
		for _, c := range w.fleet.containers {
			if c.Holds(id) {
				found = c
				return nil
			}
		}
		return errors.New("none does")
	})
	return found
}

// claims are those of the original's tokens.
func claims(id string, expires time.Time) map[string]any {
	return map[string]any{
		"sessionId": id, "userId": "user_dev-key-", "sub": "dev-key-123", "browserOptions": map[string]any{},
		"iat": expires.Add(-time.Hour).Unix(), "exp": expires.Unix(),
	}
}

// token encrypts claims as the original does: JWE compact, dir, A256GCM.
func token(t *testing.T, header, secret string, content any) string {
	t.Helper()
	key := sha256.Sum256([]byte(secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	iv := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(iv)
	head := b64([]byte(header))
	sealed := gcm.Seal(nil, iv, plain, []byte(head))
	cut := len(sealed) - gcm.Overhead()
	return strings.Join([]string{head, "", b64(iv), b64(sealed[:cut]), b64(sealed[cut:])}, ".")
}

const originalHeader = `{"alg":"dir","enc":"A256GCM"}`

func (w *original) token(t *testing.T, id string) string {
	t.Helper()
	return token(t, originalHeader, originalSecret, claims(id, time.Now().Add(time.Hour)))
}

// v1Socket is a client of the original's dialect.
type v1Socket struct {
	t *testing.T
	*websocket.Conn
}

// open connects as the original's clients do: with the token in a header.
func (w *original) open(t *testing.T, id string) *v1Socket {
	t.Helper()
	s, resp, err := w.tryOpen(t, id, w.token(t, id))
	if err != nil {
		t.Fatalf("connecting to %s: %v (%v)", id, err, resp)
	}
	return s
}

func (w *original) tryOpen(t *testing.T, id, token string) (*v1Socket, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, w.socket(id, ""), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		return nil, resp, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &v1Socket{t, conn}, resp, nil
}

// enter is open for a session that is ready.
func (w *original) enter(t *testing.T, id string) *v1Socket {
	t.Helper()
	s := w.open(t, id)
	s.wants(`{"type":"session_ready","sessionId":"` + id + `"}`)
	return s
}

func (s *v1Socket) says(text string) {
	s.t.Helper()
	if err := s.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *v1Socket) hears() []byte {
	s.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(60 * time.Second))
	kind, text, err := s.ReadMessage()
	if err != nil {
		s.t.Fatalf("nothing came: %v", err)
	}
	if kind != websocket.TextMessage {
		s.t.Errorf("the message is of kind %d", kind)
	}
	return text
}

func (s *v1Socket) wants(text string) {
	s.t.Helper()
	if got := s.hears(); string(got) != text {
		s.t.Fatalf("this came: %.500s\n   wanted: %.500s", got, text)
	}
}

// wantsEcho sends a command, and waits for its answer, which holds it byte for byte.
func (s *v1Socket) wantsEcho(id, command string) {
	s.t.Helper()
	s.says(command)
	got := string(s.hears())
	if !strings.HasPrefix(got, `{"id":`+id+`,"result":{"page":"`) || !strings.HasSuffix(got, `,"echo":`+command+`}}`) {
		s.t.Fatalf("the answer to %s is %.500s", command, got)
	}
}

func (s *v1Socket) wantsClose(code int, reason string) {
	s.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(90 * time.Second))
	for {
		_, _, err := s.ReadMessage()
		if err == nil {
			continue
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Text != reason {
			s.t.Fatalf("it was closed with %v, not %d %q", err, code, reason)
		}
		return
	}
}

// seen waits for a message of a kind for a session, and gives the last one.
func seen(t *testing.T, c *v1container.Container, kind, id string) v1container.Seen {
	t.Helper()
	var last v1container.Seen
	eventually(t, 30*time.Second, kind+" for "+id, func() error {
		for _, m := range c.Seen(kind) {
			if m.SessionID == id {
				last = m
			}
		}
		if last.Type == "" {
			return errors.New("none came")
		}
		return nil
	})
	return last
}
