package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// manager is a Secrets Manager on loopback that speaks its JSON protocol.
type manager struct {
	*httptest.Server

	mu     sync.Mutex // guards the fields below
	stages map[string][]string
	made   time.Time
	fault  string // an error type to answer with; empty: none
	calls  int
	asked  chan struct{} // gets a token for each call, if there is room
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{stages: map[string][]string{}, made: time.Now(), asked: make(chan struct{}, 1000)}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// put makes the text the current version of a secret.
func (m *manager) put(id, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stages[id] = append([]string{text}, m.stages[id]...)
	m.made = time.Now()
}

func (m *manager) fail(kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = kind
}

func (m *manager) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func (m *manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	select {
	case m.asked <- struct{}{}:
	default:
	}
	var in struct{ SecretID, VersionStage string }
	refuse := func(status int, kind string) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":%q,"message":"because"}`, kind)
	}
	text, _ := io.ReadAll(r.Body)
	if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || json.Unmarshal(text, &in) != nil {
		refuse(http.StatusBadRequest, "InvalidParameterException")
		return
	}
	if m.fault != "" {
		refuse(http.StatusBadRequest, m.fault)
		return
	}
	at := map[string]int{"AWSCURRENT": 0, "AWSPREVIOUS": 1}[in.VersionStage]
	if at >= len(m.stages[in.SecretID]) {
		refuse(http.StatusBadRequest, "ResourceNotFoundException")
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"Name": in.SecretID, "SecretString": m.stages[in.SecretID][at], "CreatedDate": float64(m.made.UnixMilli()) / 1000,
	})
}

// logs collects what is said.
type logs struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// config reads the secret of that id at the manager.
func (m *manager) config(t testing.TB, id string) (auth.SecretConfig, *logs, *prometheus.Registry) {
	t.Helper()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	client, err := auth.NewManager(t.Context(), auth.ManagerOptions{Endpoint: m.URL})
	if err != nil {
		t.Fatal(err)
	}
	registry, said := prometheus.NewRegistry(), &logs{}
	metrics, err := auth.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	return auth.SecretConfig{
		Name: "test", Source: client.Source(id), Retry: time.Millisecond, Metrics: metrics,
		Log: slog.New(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, said, registry
}

const arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:jwe-AbCdEf"

func stored(n int) string { return fmt.Sprintf(`{"JWE_SECRET":"canary-%d-0123456789"}`, n) }

// original mints tokens as a Lambda does that reads the secret at each call.
func original(t testing.TB, text string) string {
	t.Helper()
	jwe, err := auth.NewJWE(auth.Secret(text))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwe.Mint("ses_1", "alice", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSecretIsHashedWholeAndRotates(t *testing.T) {
	m := newManager(t)
	m.put(arn, stored(1))
	cfg, said, registry := m.config(t, arn)
	tokens, err := auth.OpenJWE(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	first := original(t, stored(1))
	if _, err := tokens.Verify(first); err != nil {
		t.Fatalf("a token under the stored secret: %v", err)
	}
	// More rotations than readings for bad tokens are allowed would hold up a test; these are fewer.
	for n := 2; n <= 4; n++ {
		m.put(arn, stored(n))
		if _, err := tokens.Verify(original(t, stored(n))); err != nil {
			t.Errorf("a token under version %d, at once: %v", n, err)
		}
		if _, err := tokens.Verify(original(t, stored(n-1))); err != nil {
			t.Errorf("a token under the version before %d: %v", n, err)
		}
		ours, err := tokens.Mint("ses_1", "alice", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newJWE(t, time.Now(), auth.Secret(stored(n))).Verify(ours); err != nil {
			t.Errorf("a token of ours is not under version %d: %v", n, err)
		}
	}
	if _, err := tokens.Verify(first); !errors.Is(err, state.ErrUnauthorized) {
		t.Errorf("a token three versions old: %v", err)
	}
	if strings.Contains(said.String(), "canary") {
		t.Errorf("the log quotes a secret: %s", said)
	}
	metric, err := testutil.GatherAndCount(registry, "wallcrawler_auth_secret_read_timestamp_seconds")
	if err != nil || metric != 1 {
		t.Errorf("the time of the last good reading: %d series, %v", metric, err)
	}
	if n := testutil.CollectAndCount(registry, "wallcrawler_auth_secret_reads_total"); n != 2 {
		t.Errorf("%d series of readings", n)
	}
}

func TestBadTokensCauseFewReadings(t *testing.T) {
	m := newManager(t)
	m.put(arn, stored(1))
	cfg, _, _ := m.config(t, arn)
	tokens, err := auth.OpenJWE(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := m.count()
	expired, err := newJWE(t, noon, auth.Secret(stored(1))).Mint("ses_1", "alice", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "a.b.c", strings.Repeat(".", 4), expired} {
		_, _ = tokens.Verify(bad)
	}
	if m.count() != before {
		t.Errorf("%d readings for tokens that no key could make good", m.count()-before)
	}
	forged := original(t, stored(9))
	begun := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 50 {
				if _, err := tokens.Verify(forged); err == nil {
					t.Error("a forged token passed")
				}
			}
		})
	}
	all.Wait()
	// Two calls a reading: five readings at once, and one a second.
	if n, most := m.count()-before, 2*(5+1+int(time.Since(begun).Seconds())); n == 0 || n > most {
		t.Errorf("1000 forged tokens caused %d calls, want 1 to %d", n, most)
	}
}

func TestLastGoodSecretStays(t *testing.T) {
	for name, breakIt := range map[string]func(m *manager){
		"it is down":             func(m *manager) { m.Close() },
		"it throttles":           func(m *manager) { m.fail("ThrottlingException") },
		"it refuses":             func(m *manager) { m.fail("AccessDeniedException") },
		"the secret is gone":     func(m *manager) { m.fail("ResourceNotFoundException") },
		"the secret became void": func(m *manager) { m.put(arn, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			m.put(arn, stored(1))
			cfg, said, registry := m.config(t, arn)
			cfg.Interval = 10 * time.Millisecond
			tokens, err := auth.OpenJWE(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			breakIt(m)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = tokens.Run(ctx) }()
			defer func() { cancel(); <-done }()
			await(t, "the log says so", func() bool { return strings.Contains(said.String(), "the last good one stays") })
			if _, err := tokens.Verify(original(t, stored(1))); err != nil {
				t.Errorf("a token under the last good secret: %v", err)
			}
			if strings.Contains(said.String(), "canary") {
				t.Errorf("the log quotes a secret: %s", said)
			}
			if n := strings.Count(said.String(), "the last good one stays"); n > 3 {
				t.Errorf("said %d times", n)
			}
			if text, err := registry.Gather(); err != nil || !strings.Contains(fmt.Sprint(text), `"error"`) {
				t.Errorf("no failed reading is counted: %v %v", text, err)
			}
		})
	}
}

func TestRunPicksUpRotation(t *testing.T) {
	m := newManager(t)
	m.put(arn, stored(1))
	cfg, _, _ := m.config(t, arn)
	cfg.Interval = 10 * time.Millisecond
	tokens, err := auth.OpenJWE(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = tokens.Run(ctx) }()
	defer func() { cancel(); <-done }()
	m.put(arn, stored(2))
	second := newJWE(t, time.Now(), auth.Secret(stored(2)))
	await(t, "tokens are minted under the new secret", func() bool {
		raw, err := tokens.Mint("ses_1", "alice", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		_, err = second.Verify(raw)
		return err == nil
	})
}

// await waits for a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func TestStartWaitsForTheSecret(t *testing.T) {
	m := newManager(t)
	m.fail("AccessDeniedException")
	m.put(arn, stored(1))
	cfg, said, _ := m.config(t, arn)
	opened := make(chan error, 1)
	go func() {
		_, err := auth.OpenJWE(t.Context(), cfg)
		opened <- err
	}()
	await(t, "it says that it waits", func() bool { return strings.Contains(said.String(), "waiting for it") })
	await(t, "it asks again", func() bool { return m.count() > 3 })
	select {
	case err := <-opened:
		t.Fatalf("did not wait: %v", err)
	default:
	}
	m.fail("")
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "waiting for it"); n != 1 {
		t.Errorf("said %d times that it waits", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	m.fail("ThrottlingException")
	go func() {
		_, err := auth.OpenJWE(ctx, cfg)
		opened <- err
	}()
	cancel()
	if err := <-opened; !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the start: %v", err)
	}
}

func TestSecretOfNoUseEndsTheStart(t *testing.T) {
	m := newManager(t)
	m.put("short", "canary")
	m.put("none", `{"KEYS":["canary"]}`)
	for _, id := range []string{"short", "none"} {
		cfg, _, _ := m.config(t, id)
		var err error
		if id == "short" {
			_, err = auth.OpenJWE(t.Context(), cfg)
		} else {
			_, err = auth.OpenKeys(t.Context(), cfg)
		}
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestAPIKeysRotate(t *testing.T) {
	m := newManager(t)
	m.put(arn, `{"API_KEYS":["key-one","key-two"]}`)
	cfg, _, _ := m.config(t, arn)
	keys, err := auth.OpenKeys(t.Context(), cfg, auth.Key{Key: "key-one", Name: "alice"}, auth.Key{Key: "key-fixed"})
	if err != nil {
		t.Fatal(err)
	}
	known := func(key auth.Secret) bool {
		_, known := keys.User(key)
		return known
	}
	if user, _ := keys.User("key-one"); user != "alice" {
		t.Errorf("the user of a key that is named besides is %q", user)
	}
	if !known("key-two") || !known("key-fixed") || known("key-three") {
		t.Error("the stored and the fixed keys are not those that are known")
	}
	m.put(arn, `{"API_KEYS":"[\"key-three\"]"}`)
	if !known("key-three") {
		t.Error("a new key is not known at once")
	}
	if !known("key-two") || !known("key-fixed") {
		t.Error("a key of the previous version is not known during the overlap")
	}
	m.put(arn, `["key-three"]`)
	_ = known("key-four") // has the secret read again
	if known("key-two") || !known("key-three") {
		t.Error("a key that was struck off two versions ago is known, or a stored one is not")
	}
}

func TestStruckOffKeyLosesItsPower(t *testing.T) {
	versions := auth.Versions{Current: `["key-new"]`, Previous: `["key-old"]`, Since: time.Now().Add(-auth.KeyOverlap - time.Second)}
	source := func(context.Context) (auth.Versions, error) { return versions, nil }
	keys, err := auth.OpenKeys(t.Context(), auth.SecretConfig{Name: "api_keys", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	if _, known := keys.User("key-old"); known {
		t.Error("a key of the previous version is known after the overlap")
	}
	if _, known := keys.User("key-new"); !known {
		t.Error("a current key is not known")
	}
}

func TestContainerKeysRotate(t *testing.T) {
	m := newManager(t)
	m.put(arn, stored(1))
	cfg, _, _ := m.config(t, arn)
	here, err := auth.OpenContainerKeys(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	old := here.Token("cnt_1")
	m.put(arn, stored(2))
	there, err := auth.OpenContainerKeys(t.Context(), cfg) // another replica, started later
	if err != nil {
		t.Fatal(err)
	}
	if err := there.Verify("cnt_1", old); err != nil {
		t.Errorf("a token of the previous version: %v", err)
	}
	if err := here.Verify("cnt_1", there.Token("cnt_1")); err != nil {
		t.Errorf("a token of a version that is newer than ours: %v", err)
	}
	if here.Token("cnt_1") != there.Token("cnt_1") || here.LinkSecret("cnt_1", "b") != there.LinkSecret("cnt_1", "b") {
		t.Error("two replicas derive different credentials")
	}
	if got := here.PreviousLinkSecrets("cnt_1", "b"); len(got) != 1 || got[0] == here.LinkSecret("cnt_1", "b") {
		t.Errorf("%d previous link secrets", len(got))
	}
	m.put(arn, stored(3))
	later, err := auth.OpenContainerKeys(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := later.Ticket("replica-1", "ses_1", "alice")
	if err != nil {
		t.Fatal(err)
	}
	if user, err := here.Check(ticket, "replica-1", "ses_1"); err != nil || user != "alice" {
		t.Errorf("a ticket of a replica with a newer secret: %q, %v", user, err)
	}
	if _, err := here.Check(ticket, "replica-2", "ses_1"); !errors.Is(err, state.ErrUnauthorized) {
		t.Errorf("a ticket for another replica: %v", err)
	}
	if err := here.Verify("cnt_2", old); !errors.Is(err, state.ErrUnauthorized) {
		t.Errorf("a token for another container: %v", err)
	}
}
