package e2e

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// freePort finds a TCP port of 127.0.0.1 on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := stage.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// redisServer is a real one that keeps its data over a restart.
type redisServer struct {
	addr, password string
	authority      string // file of who vouches for its certificate; empty: it speaks no TLS
	args           []string
	process        *process
	client         *redis.Client
}

func startRedis(t *testing.T, password string) *redisServer {
	t.Helper()
	r := newRedis(t, password)
	r.start(t)
	return r
}

// newRedis prepares a server that does not run yet.
func newRedis(t *testing.T, password string) *redisServer {
	t.Helper()
	port := freePort(t)
	r := &redisServer{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), password: password}
	r.args = []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", t.TempDir(),
		"--save", "", "--appendonly", "yes", "--appendfsync", "always"}
	if password != "" {
		r.args = append(r.args, "--requirepass", password)
	}
	r.client = redis.NewClient(&redis.Options{Addr: r.addr, Password: password, DialTimeout: time.Second})
	t.Cleanup(func() { _ = r.client.Close() })
	return r
}

func (r *redisServer) start(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: %s", err, setUp)
	}
	r.process = start(t, program{name: "redis-server", path: path, args: r.args, env: []string{"PATH=/usr/bin:/bin"}})
	eventually(t, 10*time.Second, "redis answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return r.client.Ping(ctx).Err()
	})
}

// kill ends the server as a crash does.
func (r *redisServer) kill(t *testing.T) {
	t.Helper()
	if err := r.process.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.process.awaitExit(t, 10*time.Second)
}

// get reads a key.
func (r *redisServer) get(t *testing.T, key string) string {
	t.Helper()
	value, err := r.client.Get(t.Context(), key).Result()
	if err != nil {
		t.Fatalf("reading %s: %v", key, err)
	}
	return value
}
