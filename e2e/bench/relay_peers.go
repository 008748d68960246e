//go:build linux

package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// target is a proxy under measurement.
type target struct {
	name string
	ours bool // a build of the product
	addr netip.AddrPort
	pid  int
	// request gives the path and the token for a session's connection.
	request func(id int) (path, token string)
	close   func()
}

func (t target) cpu() time.Duration { return schedCPU(t.pid) }

// resident is the memory of the whole process tree, shared pages counted each time.
func (t target) resident() int64 {
	var sum int64
	for _, s := range tree(processes(), t.pid) {
		sum += stage.Resident(s.pid)
	}
	return sum
}

// schedCPU is the processor time of a process tree to the nanosecond, of the threads that live.
func schedCPU(root int) time.Duration {
	var sum int64
	for _, s := range tree(processes(), root) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.pid))
		for _, file := range tasks {
			text, err := os.ReadFile(file)
			var ran int64
			if err == nil {
				_, _ = fmt.Sscan(string(text), &ran)
			}
			sum += ran
		}
	}
	return time.Duration(sum)
}

// peer is a proxy of somebody else's, set up to do nothing but pass WebSockets on.
type peer struct {
	name  string
	needs string // an executable
	// command gives what to start; dir is its own directory.
	command func(dir string, listen, backend netip.AddrPort) (args []string, err error)
}

const ourName = "wallcrawler"

func peers(clients string) []peer {
	return []peer{
		{"nginx-32k", "nginx", func(dir string, listen, backend netip.AddrPort) ([]string, error) {
			return nginx(dir, listen, backend, "proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;")
		}},
		{"nginx", "nginx", func(dir string, listen, backend netip.AddrPort) ([]string, error) {
			return nginx(dir, listen, backend, "")
		}},
		{"haproxy", "haproxy", haproxy},
		{"node-ws", "node", func(dir string, listen, backend netip.AddrPort) ([]string, error) {
			script := filepath.Join(dir, "relay.cjs")
			library := filepath.Join(clients, "node_modules", "ws")
			if _, err := os.Stat(library); err != nil {
				return nil, fmt.Errorf("the npm package ws is not there: run npm ci in e2e/clients: %w", err)
			}
			return []string{"node", script, library, listen.Addr().String(), strconv.Itoa(int(listen.Port())), backend.String()},
				os.WriteFile(script, nodeRelay, 0o600)
		}},
		{"go-reverseproxy", "", func(_ string, listen, backend netip.AddrPort) ([]string, error) {
			self, err := os.Executable()
			return []string{self, reverseProxyCommand, listen.String(), backend.String()}, err
		}},
	}
}

func nginx(dir string, listen, backend netip.AddrPort, buffers string) ([]string, error) {
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
pid %[1]s/pid; error_log %[1]s/error.log error;
events { worker_connections 20000; }
http {
	access_log off;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server {
		listen %[2]s backlog=4096;
		%[4]s
		location / {
			proxy_pass http://%[3]s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_set_header Host $host;
			proxy_buffering off;
			proxy_read_timeout 1h; proxy_send_timeout 1h;
		}
	}
}
`, dir, listen, backend, buffers)
	return []string{"nginx", "-p", dir, "-e", filepath.Join(dir, "start.log"), "-c", file}, os.WriteFile(file, []byte(text), 0o600)
}

func haproxy(dir string, listen, backend netip.AddrPort) ([]string, error) {
	file := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf(`
global
	nbthread 1
	maxconn 9900
defaults
	mode http
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	timeout tunnel 1h
listen relay
	bind %s backlog 4096
	server browser %s
`, listen, backend)
	return []string{"haproxy", "-db", "-q", "-f", file}, os.WriteFile(file, []byte(text), 0o600)
}

// reverseProxyCommand is how this program is told to be one of the peers.
const reverseProxyCommand = "be-a-reverse-proxy"

// reverseProxy is the standard library's, as its documentation shows it.
func reverseProxy(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: be-a-reverse-proxy LISTEN BACKEND")
	}
	backend := &url.URL{Scheme: "http", Host: args[1]}
	server := &http.Server{Addr: args[0], ReadHeaderTimeout: 5 * time.Second,
		Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend) }}}
	return server.ListenAndServe()
}

const (
	labCore   = "0"
	proxyCore = "1"
)

// startPeer starts a peer in front of backend.
func (b *bench) startPeer(ctx context.Context, p peer, backend netip.AddrPort) (target, error) {
	dir, err := os.MkdirTemp(b.Tmp, "peer-")
	if err != nil {
		return target{}, err
	}
	port, err := stage.FreePort()
	if err != nil {
		return target{}, err
	}
	listen := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	args, err := p.command(dir, listen, backend)
	if err != nil {
		return target{}, err
	}
	args = stage.Pinned(proxyCore, args)
	process, err := b.Start(stage.Program{Name: p.name, Path: args[0], Args: args[1:],
		Env: []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin", "HOME=" + dir, "GOMAXPROCS=1"}})
	if err != nil {
		return target{}, err
	}
	t := target{name: p.name, addr: listen, pid: process.Pid(),
		request: func(id int) (string, string) { return fmt.Sprintf("/sessions/s%d/ws", id), "bench" },
		close: func() {
			process.Stop(syscall.SIGTERM)
			_ = os.RemoveAll(dir)
		}}
	if err := process.Until(ctx, 10*time.Second, "it listens", func() error { return listens(listen) }); err != nil {
		t.close()
		return target{}, err
	}
	return t, nil
}

func listens(addr netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// slotsEach is how many sessions a fake container takes.
const slotsEach = 1000

// startOurs starts the product as it is deployed: real Redis, sessions that are bound to
// registered containers, tokens, metrics.
func (b *bench) startOurs(ctx context.Context, l *lab, sessions int) (target, error) {
	sessions = max(sessions, 600) // for atRest
	containers := (sessions + slotsEach - 1) / slotsEach
	secret := rand.Text()
	s, err := b.startService(ctx, stage.Options{Containers: containers, Slots: slotsEach, Notifications: true,
		Secret: secret, Sockets: l.serve, Core: proxyCore})
	if err != nil {
		return target{}, err
	}
	t := target{name: ourName, ours: true, pid: s.Pid(), close: s.Close, addr: s.Addr}
	tokens := make([]string, sessions)
	name := func(i int) string { return fmt.Sprintf("ses_bench_%d", i) }
	bound := make([]<-chan time.Time, sessions)
	const batch = 500
	for from := 0; from < sessions && err == nil; from += batch {
		pipe := s.Redis.Pipeline()
		for i := from; i < min(from+batch, sessions); i++ {
			user := fmt.Sprintf("user_%d", i%1000)
			tokens[i] = mint(secret, name(i), user)
			bound[i], _ = s.Fakes.Expect(name(i))
			pipe.SetEx(ctx, "session:"+name(i), stage.DocumentOf(name(i), user, "pending"), stage.DocumentLife)
		}
		_, err = pipe.Exec(ctx)
	}
	for i := 0; i < sessions && err == nil; i++ {
		_, err = s.Await(ctx, bound[i], 2*time.Minute)
	}
	if err == nil {
		err = s.settle(ctx, 90*time.Second)
	}
	if err != nil {
		s.Close()
		return target{}, fmt.Errorf("binding %d sessions: %w", sessions, err)
	}
	t.request = func(id int) (string, string) { return "/sessions/" + name(id) + "/ws", tokens[id] }
	return t, nil
}

// mint signs a session's token as the service does.
func mint(secret, session, user string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{"sessionId": session, "userId": user, "aud": []string{"wallcrawler"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(stage.DocumentLife).Unix()})
	if err != nil {
		panic(err) // it holds nothing that JSON cannot
	}
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// has tells whether what a peer needs is installed.
func (p peer) has() bool {
	if p.needs == "" {
		return true
	}
	if _, err := exec.LookPath(p.needs); err == nil {
		return true
	}
	_, err := os.Stat("/usr/sbin/" + p.needs)
	return err == nil
}
