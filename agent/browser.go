package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxTail       = 4 << 10         // of a browser's output, kept for messages
	outputTimeout = 2 * time.Second // from a browser's end to that of its last child
	removeTimeout = 5 * time.Second // for its files: dying children may still write some
)

// browser is one Chromium: a process group and a directory of its own.
type browser struct {
	// set once in starter.start
	cmd     *exec.Cmd
	dir     string
	addr    string // of its DevTools: a loopback port of its own choice
	path    string // of its browser-level socket, not to be guessed
	started time.Time
	output  *tail
	log     *slog.Logger

	exited chan struct{}    // closed when the process has ended
	state  *os.ProcessState // how; set before exited is closed
	gone   chan struct{}    // closed when nothing of it is left

	mu     sync.Mutex // guards the following
	reaped bool       // its process id may be somebody else's by now
	told   func()
}

// starter starts browsers.
type starter struct {
	cfg      Config
	exe      string
	work     *work
	launcher *launcher
}

// start starts a browser and waits until it can be driven. An error says what the browser
// said; nothing of it is left then.
func (st *starter) start(ctx context.Context, want settings) (*browser, error) {
	ctx, cancel := context.WithTimeout(ctx, st.cfg.StartTimeout)
	defer cancel()
	dir, err := st.work.newDir()
	if err != nil {
		return nil, err
	}
	b := &browser{
		dir: dir, started: time.Now(), output: newTail(), log: st.cfg.Log,
		exited: make(chan struct{}), gone: make(chan struct{}),
	}
	if err := b.launch(st, want); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", st.exe, err), removeAll(dir))
	}
	select {
	case endpoint := <-b.output.endpoint:
		u, err := url.Parse(endpoint)
		if err == nil && u.Hostname() == "127.0.0.1" && strings.HasPrefix(u.Path, "/devtools/browser/") {
			b.addr, b.path = u.Host, u.Path
			return b, nil
		}
		b.kill()
		return nil, fmt.Errorf("starting %s: it listens at %q, which is not a DevTools address on 127.0.0.1", st.exe, endpoint)
	case <-b.exited:
		b.kill()
		return nil, fmt.Errorf("starting %s: it ended at once (%s): %s", st.exe, b.state, b.output.text())
	case <-ctx.Done():
		b.kill()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fmt.Errorf("starting %s: not ready after %s: %s", st.exe, st.cfg.StartTimeout, b.output.text())
		}
		return nil, ctx.Err()
	}
}

// launch starts the process and what watches it.
func (b *browser) launch(st *starter, want settings) error {
	tmp := filepath.Join(b.dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(st.exe, st.args(b.dir, want)...)
	cmd.Env = environment(b.dir, tmp, want)
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = processAttributes()
	err = st.launcher.start(cmd)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return err
	}
	b.cmd = cmd
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		b.output.readAll(r)
	}()
	go b.supervise(r, drained) // kill waits for it, and so does whoever owns the browser
	return nil
}

// args are the browser's flags.
func (st *starter) args(dir string, want settings) []string {
	args := []string{
		"--headless", "--remote-debugging-port=0", "--user-data-dir=" + filepath.Join(dir, "profile"),
		fmt.Sprintf("--window-size=%d,%d", want.viewport.Width, want.viewport.Height),
		// Nothing of its own accord: no first-run pages, no updates, no reports, no prompts.
		"--no-first-run", "--no-default-browser-check", "--disable-default-apps",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-breakpad", "--metrics-recording-only", "--disable-field-trial-config",
		"--disable-prompt-on-repost", "--disable-popup-blocking", "--disable-hang-monitor",
		"--password-store=basic", "--use-mock-keychain", "--mute-audio",
		// A page that is not looked at runs like one that is: nobody looks at any.
		"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows",
		"--disable-renderer-backgrounding", "--disable-ipc-flooding-protection",
		"--disable-gpu", "--disable-quic",
		"--disable-features=Translate,MediaRouter,OptimizationHints",
	}
	if st.cfg.NoSandbox || os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // as root it does not start with one
	}
	if sharedMemoryIsSmall() {
		args = append(args, "--disable-dev-shm-usage")
	}
	args = append(args, want.flags...)
	return append(args, st.cfg.BrowserArgs...)
}

// environment is made from nothing: the agent's own holds its token.
func environment(home, tmp string, want settings) []string {
	env := []string{
		"HOME=" + home, "TMPDIR=" + tmp,
		// No bus is better than one that it would start by itself, out of our sight.
		"DBUS_SESSION_BUS_ADDRESS=disabled:",
	}
	for _, name := range []string{"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH",
		"FONTCONFIG_PATH", "FONTCONFIG_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE"} {
		if v, ok := os.LookupEnv(name); ok && !(name == "TZ" && want.timezone != "") {
			env = append(env, name+"="+v)
		}
	}
	if want.timezone != "" {
		env = append(env, "TZ="+want.timezone)
	}
	return env
}

// supervise sees to the browser's end: its process group, its pipe, its files, in this order.
func (b *browser) supervise(output *os.File, drained <-chan struct{}) {
	defer close(b.gone)
	awaitExit(b.cmd)
	b.mu.Lock()
	b.signalLocked()
	b.reaped = true
	b.mu.Unlock()
	_ = b.cmd.Wait()
	b.state = b.cmd.ProcessState
	close(b.exited)
	b.mu.Lock()
	told := b.told
	b.mu.Unlock()
	if told != nil {
		told()
	}
	all := reapGroup(b.cmd.Process.Pid, outputTimeout)
	// The pipe ends with the last process that holds it, in the group or not.
	timer := time.NewTimer(outputTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		all = false
	}
	if !all {
		b.log.Warn("browser left a process", "pid", b.cmd.Process.Pid)
	}
	_ = output.Close()
	<-drained
	if err := removeAll(b.dir); err != nil {
		b.log.Error("browser's files remain", "error", err.Error())
	}
}

// kill ends the browser with all that it started, and waits until nothing of it is left. It
// may be called at any time, also for one that has ended.
func (b *browser) kill() {
	b.mu.Lock()
	b.signalLocked()
	b.mu.Unlock()
	<-b.gone
}

func (b *browser) signalLocked() {
	if !b.reaped {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// onExit has f called once the browser's process has ended.
func (b *browser) onExit(f func()) {
	b.mu.Lock()
	b.told = f
	b.mu.Unlock()
	if !b.alive() {
		f()
	}
}

func (b *browser) alive() bool {
	select {
	case <-b.exited:
		return false
	default:
		return true
	}
}

// tail keeps the end of a browser's output, and finds in it where it listens.
type tail struct {
	endpoint chan string // gets one value at most

	mu   sync.Mutex // guards the following
	kept []byte
}

func newTail() *tail { return &tail{endpoint: make(chan string, 1)} }

// readAll reads r to its end, line by line; of a line too long it takes the beginning.
func (t *tail) readAll(r io.Reader) {
	const announce = "DevTools listening on "
	found, in := false, bufio.NewReaderSize(r, maxTail)
	for {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		if where, ok := strings.CutPrefix(string(line), announce); ok && !found && !more {
			found = true
			t.endpoint <- strings.TrimSpace(where)
		}
		t.mu.Lock()
		t.kept = append(append(t.kept, line...), '\n')
		if n := len(t.kept) - maxTail; n > 0 {
			t.kept = append(t.kept[:0], t.kept[n:]...)
		}
		t.mu.Unlock()
	}
}

// text is the end of the output in one line.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.Join(strings.Fields(string(t.kept)), " ")
	if s == "" {
		return "it said nothing"
	}
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return strings.ToValidUTF8(s, "?")
}

const howToInstall = "Debian: apt-get install chromium-headless-shell; " +
	"anywhere: npx @puppeteer/browsers install chrome-headless-shell"

// findBrowser gives the executable to start: the named one, else the first that is there. The
// wrappers in /usr/bin of Debian do not exec, so their processes come last.
func findBrowser(named string) (string, error) {
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("looking for the browser %s: %w: name the executable of a Chromium (%s)", named, err, howToInstall)
		}
		return filepath.Abs(path)
	}
	for _, name := range []string{
		"/usr/lib/chromium/chromium-headless-shell", "chrome-headless-shell",
		"/usr/lib/chromium/chromium", "/usr/lib64/chromium-browser/chromium-browser",
		"/opt/google/chrome/chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"headless-shell", "headless_shell", "google-chrome-stable", "google-chrome",
		"chromium-headless-shell", "chromium", "chromium-browser",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("no Chromium found: install one (" + howToInstall + ") or name its executable")
}

// dialLoopback is the only way to a browser.
func dialLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host != "127.0.0.1" {
		return nil, fmt.Errorf("dialling a browser at %s: not on 127.0.0.1", addr)
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
}
