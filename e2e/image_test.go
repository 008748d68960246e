package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestTheServiceNeedsNothingBesideItsImage makes a directory of what the last stage of the
// Dockerfile copies, and runs the service with that for its root, as the image's user.
func TestTheServiceNeedsNothingBesideItsImage(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may change its root directory")
	}
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(t.TempDir(), "wallcrawler")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", built, "../cmd/wallcrawler")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, stage, _ := strings.Cut(string(text), "\nFROM scratch\n")
	root := t.TempDir()
	for dir := root; dir != filepath.Dir(suite.tmp) && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the image's user must get there
			t.Fatal(err)
		}
	}
	var uid, gid uint32
	for line := range strings.Lines(stage) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 4 && fields[0] == "COPY":
			from := fields[2]
			if from == "/out/wallcrawler" {
				from = built
			}
			put(t, from, filepath.Join(root, fields[3]))
		case len(fields) == 2 && fields[0] == "USER":
			if _, err := fmt.Sscanf(fields[1], "%d:%d", &uid, &gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if uid == 0 || gid == 0 {
		t.Fatal("the image runs as root")
	}
	roots, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := pem.Decode(roots)
	if first == nil {
		t.Fatal("the image has no roots of trust")
	}
	if _, err := x509.ParseCertificate(first.Bytes); err != nil {
		t.Fatal(err)
	}

	s := newService(t, serviceOptions{})
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} { // an image has none of these
		delete(s.env, name)
	}
	s.process = startIn(t, program{name: "wallcrawler serve", path: "/usr/local/bin/wallcrawler", args: []string{"serve"}, env: environ(s.env), dir: "/"},
		&syscall.SysProcAttr{Setpgid: true, Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}})
	s.awaitReady(t)
	s.awaitContainer(t)
	driveChromedp(t, s, startSite(t))
	asked := startIn(t, program{name: "wallcrawler health", path: "/usr/local/bin/wallcrawler", args: []string{"health"}, env: []string{"PORT=" + strconv.Itoa(s.port)}, dir: "/"},
		&syscall.SysProcAttr{Setpgid: true, Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}})
	if code := asked.awaitExit(t, time.Minute); code != 0 {
		t.Errorf("the image's health check ends with %d", code)
	}
	s.process.signal(t, syscall.SIGTERM)
	if code := s.process.awaitExit(t, time.Minute); code != 0 {
		t.Errorf("serve has ended with status %d", code)
	}
}

func put(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, content, 0o755) //nolint:gosec // the program, and what all may read
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestComposesCommandServes runs what deploy/compose runs, with a real Redis, at addresses of
// this machine.
func TestComposesCommandServes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../deploy/compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Services map[string]struct{ Command []string }
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	const key = "compose-key-0123456789"
	redis := startRedis(t, "")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	stand := map[string]string{"0.0.0.0:8080": address, "redis:6379": redis.addr, "${WALLCRAWLER_API_KEY:-compose-only-key-0123456789}": key}
	args := c.Services["wallcrawler"].Command
	for i, a := range args {
		if there, ok := stand[a]; ok {
			args[i] = there
			delete(stand, a)
		}
	}
	if len(stand) > 0 {
		t.Fatalf("compose does not say %v", stand)
	}
	p := start(t, program{name: "wallcrawler dev", path: suite.binary, args: args,
		env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "BROWSER_PATH=" + suite.browser}})
	alice := caller{"http://" + address, key}
	eventually(t, time.Minute, "the first browser is there", func() error {
		if p.ended() {
			t.Fatal("it has ended")
		}
		if !p.stdout.contains("ready after") {
			return fmt.Errorf("it says %s", p.stdout.tail())
		}
		return nil
	})
	created := alice.create(t, nil)
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)
	if !strings.Contains(redis.get(t, "session:"+created.ID), created.ID) {
		t.Error("the session is not in that Redis")
	}
	p.signal(t, syscall.SIGTERM)
	p.awaitExit(t, time.Minute)
}
