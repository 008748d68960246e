package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

// journal collects a service's log.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// secretsManager serves secrets by ARN.
func secretsManager(t *testing.T, secrets map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ SecretID, VersionStage string }
		text, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(text, &in)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		value, known := secrets[in.SecretID]
		if !known || in.VersionStage != "AWSCURRENT" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"ResourceNotFoundException","message":"none"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"SecretString": value, "CreatedDate": time.Now().Unix()})
	}))
	t.Cleanup(s.Close)
	return s
}

// TestOriginalEnvironmentServes starts a replica in the original's environment: only the
// endpoints of AWS, Redis and the metadata are those of this test.
func TestOriginalEnvironmentServes(t *testing.T) {
	const stored = `{"JWE_SECRET":"canary-jwe-0123456789"}`
	env := original()
	manager := secretsManager(t, map[string]string{
		env["JWE_SECRET_ARN"]: stored, env["API_KEYS_SECRET_ARN"]: `{"API_KEYS":"[\"canary-key-of-somebody\"]"}`,
	})
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v4/x/task" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"TaskARN":"arn","Containers":[{"Networks":[{"NetworkMode":"awsvpc","IPv4Addresses":["127.0.0.1"]}]}]}`)
	}))
	t.Cleanup(metadata.Close)
	redis, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.close)
	cloud, err := ecslocal.Start(ecslocal.Config{
		Cluster: env["ECS_CLUSTER_NAME"], Network: netip.MustParsePrefix("127.0.0.0/24"),
		Definitions: map[string]ecslocal.Definition{"browser": {Command: []string{"sleep", "60"}, Port: 8080, StopTimeout: time.Second}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cloud.Close(context.WithoutCancel(t.Context())) })

	c, o, err := readEnv(with(env, "REDIS_ENDPOINT", redis.addr(), "REDIS_TLS_ENABLED", "false", "REDIS_PASSWORD", "",
		"AWS_ENDPOINT_URL", cloud.URL(), "AWS_ENDPOINT_URL_SECRETS_MANAGER", manager.URL, "ECS_CONTAINER_METADATA_URI_V4", metadata.URL+"/v4/x",
		"MIN_CONTAINERS", "0", "CONTAINER_TASK_DEF", "browser", "DRAIN_UNREADY", "1ms", "DRAIN_TIMEOUT", "1ms"))
	if err != nil {
		t.Fatal(err)
	}
	said := &journal{}
	o.log = slog.New(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(o.listener.Addr().String())
	o.tellWeakness(c, o.log)
	if err := o.findSelf(t.Context(), c.GetString("metadata"), port, "9"); err != nil {
		t.Fatal(err)
	}
	if o.fleet.RegisterURL != "http://127.0.0.1:9" || o.replicaAddr != "127.0.0.1:"+port {
		t.Errorf("containers register at %s, replicas meet at %s: want ports 9 and %s", o.fleet.RegisterURL, o.replicaAddr, port)
	}
	url := "http://127.0.0.1:" + port
	s, err := newService(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if strings.Contains(said.String(), "canary") {
			t.Error("the log quotes a secret")
		}
		if !strings.Contains(said.String(), "API_KEYS_ARN is not used") {
			t.Error("nothing is said of API_KEYS_ARN")
		}
	}()

	get := func(path, header, value string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, value)
		resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	lambda, err := auth.NewJWE(stored)
	if err != nil {
		t.Fatal(err)
	}
	token, err := lambda.Mint("ses_1", "alice", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := auth.NewJWE("canary-another-0123456789")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := wrong.Mint("ses_1", "alice", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path, header, value string
		status              int
	}{
		{"/health", "Accept", "*/*", http.StatusOK},
		{"/v1/sessions", "X-BB-API-Key", "canary-key-of-somebody", http.StatusOK},
		{"/v1/sessions", "X-BB-API-Key", "canary-key-of-nobody", http.StatusUnauthorized},
		{"/sessions/ses_1/json/version", "Authorization", "Bearer " + token, http.StatusNotFound}, // let in, but there is no such session
		{"/sessions/ses_2/json/version", "Authorization", "Bearer " + token, http.StatusForbidden},
		{"/sessions/ses_1/json/version", "Authorization", "Bearer " + forged, http.StatusUnauthorized},
	} {
		if status := get(row.path, row.header, row.value); status != row.status {
			t.Errorf("%s with %.12s: %d, want %d", row.path, row.value, status, row.status)
		}
	}
	ours, err := s.tokens.Mint("ses_1", "alice", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lambda.Verify(ours); err != nil {
		t.Errorf("the original does not read our token: %v", err)
	}
}

func TestTaskAddress(t *testing.T) {
	for answer, want := range map[string]string{
		`{"Containers":[{"Networks":[{"IPv4Addresses":["10.0.3.17"]}]}]}`:                                        "10.0.3.17",
		`{"Containers":[{},{"Networks":[{"IPv4Addresses":["x"]},{"IPv4Addresses":["10.0.3.18","10.0.3.19"]}]}]}`: "10.0.3.18",
		`{"Containers":[]}`: "", `{}`: "", "no": "",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		addr, err := askMetadata(t.Context(), server.Client(), server.URL)
		server.Close()
		if (err == nil) != (want != "") || err == nil && addr.String() != want {
			t.Errorf("%s: got %v, %v, want %q", answer, addr, err, want)
		}
	}
}
