package charttest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// TestRedisTakesAnyPasswordAndStopsWhenTold runs what the chart's Redis pod runs, with passwords
// that shells and configuration files read in ways of their own.
func TestRedisTakesAnyPasswordAndStopsWhenTold(t *testing.T) {
	for name, password := range map[string]string{
		"plain":          "example-redis-password",
		"quotes":         `it's "quoted" \" and \\`,
		"dollars":        "$HOME $(id) `id` ${x}",
		"lines":          "one\ntwo\r\nrequirepass x\n",
		"spaces":         "  two  spaces ",
		"like an option": "--port 1 # > x",
		"not ASCII":      "schlüssel €",
	} {
		t.Run(name, func(t *testing.T) { runRedis(t, password) })
	}
}

func runRedis(t *testing.T, password string) {
	dir := t.TempDir()
	values, err := yaml.Marshal(map[string]any{"secretEnv": map[string]any{"values": map[string]string{"REDIS_PASSWORD": password}}})
	if err != nil {
		t.Fatal(err)
	}
	file := dir + "/values.yaml"
	if err := os.WriteFile(file, values, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := template(t, newest, "-f", "values/trial.yaml", "-f", file)
	if err != nil {
		t.Fatal(err)
	}
	r := decode(t, text)
	c := r.deployments["wc-wallcrawler-redis"].Spec.Template.Spec.Containers[0]
	if len(c.Env) != 1 || c.Env[0].Name != "REDIS_PASSWORD" {
		t.Fatalf("the environment is %v", c.Env)
	}
	given := r.secrets[c.Env[0].ValueFrom.SecretKeyRef.Name].StringData["REDIS_PASSWORD"]
	if given != password {
		t.Fatalf("the Secret holds %q, want %q", given, password)
	}

	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	script := strings.Replace(c.Args[0], "--dir /data", "--dir "+dir+" --bind 127.0.0.1 --port "+port, 1)
	if script == c.Args[0] {
		t.Fatalf("the script is %s", script)
	}
	cmd := exec.Command(c.Command[0], append(c.Command[1:], script)...) //nolint:gosec // it is the chart's
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "REDIS_PASSWORD=" + given}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a shell that stays would leave Redis behind
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })

	conn := dial(t, addr, ended)
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	ask := func(args ...string) string {
		t.Helper()
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, a := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Write([]byte(b.String())); err != nil {
			t.Fatal(err)
		}
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	for _, row := range [][]string{
		{"-NOAUTH", "PING"}, {"-WRONGPASS", "AUTH", password + "x"}, {"-WRONGPASS", "AUTH", ""}, {"+OK", "AUTH", password},
		{"+OK", "SET", "session:ses_1", "{}"}, {"+PONG", "PING"},
	} {
		if answer := ask(row[1:]...); !strings.HasPrefix(answer, row[0]) {
			t.Errorf("%.4s answers %s, want %s", row[1], answer, row[0])
		}
	}
	shown, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(shown), "redis-server") || strings.Contains(string(shown), password) {
		t.Errorf("the process that gets the signals is %q", shown)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it has ended with %v:\n%s", err, said.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("SIGTERM does not end it")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, addr string, ended <-chan error) net.Conn {
	t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("it has ended: %v", err)
		default:
		}
		if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr); err == nil {
			return conn
		}
	}
	t.Fatal("nobody listens")
	return nil
}
